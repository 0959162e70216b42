"""Payloads are appended to serialized jobs: the whole is as protobuf itself would have it."""

from google.protobuf.struct_pb2 import Struct
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobledger_server.domain.job import (
    NO_PAYLOADS,
    Instant,
    Job,
    JobError,
    JobId,
    JobStatus,
    Micros,
    Payload,
    Payloads,
    Transition,
)
from jobledger_server.rpc.messages import (
    job_bytes,
    job_response,
    jobs_response,
    watch_message,
)


def _payload(fields: dict[str, object]) -> Payload:
    struct = Struct()
    struct.update(fields)
    return Payload(struct.SerializeToString(deterministic=True))


TEXT = st.text(max_size=300)
NAMES = st.text(min_size=1, max_size=300)
INSTANTS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999).map(Instant)
STRUCTS = st.dictionaries(TEXT, st.floats(allow_nan=False) | TEXT, max_size=10).map(_payload)
JOBS = st.builds(
    Job,
    id=NAMES.map(JobId),
    user_id=NAMES,
    job_type=NAMES,
    create_time=INSTANTS,
    update_time=INSTANTS,
    status=st.sampled_from(JobStatus),
    progress=st.integers(0, 100),
    progress_message=TEXT,
    error=st.none() | st.builds(JobError, TEXT, TEXT),
    labels=st.dictionaries(TEXT, TEXT, max_size=4),
    attempt=st.integers(0, 2**31 - 1),
    max_attempts=st.integers(1, 1000),
    initial_backoff=st.integers(1, 10**15).map(Micros),
    max_backoff=st.integers(1, 10**15).map(Micros),
    backoff_multiplier=st.floats(1, 100),
    priority=st.integers(0, 9),
    fairness_key=TEXT,
    concurrency_key=TEXT,
    unique_key=TEXT,
    schedule_time=st.none() | INSTANTS,
    retry_time=st.none() | INSTANTS,
    last_error=st.none() | st.builds(JobError, TEXT, TEXT),
    origin_job_id=st.none() | NAMES.map(JobId),
    worker_id=TEXT,
    start_time=st.none() | INSTANTS,
    complete_time=st.none() | INSTANTS,
    lease_expire_time=st.none() | INSTANTS,
    queue_timeout=st.just(Micros(1)),
    queue_expire_time=st.none() | INSTANTS,
    stall_timeout=st.none() | st.integers(1, 10**15).map(Micros),
    progress_time=st.none() | INSTANTS,
    run_expire_time=st.none() | INSTANTS,
    cancel_request_time=st.none() | INSTANTS,
    cancel_reason=TEXT,
    traceparent=TEXT,
    version=st.integers(1, 2**63 - 1),
)
CONTENTS = st.builds(
    Payloads,
    parameters=st.none() | STRUCTS,
    checkpoint=st.none() | STRUCTS,
    result=st.none() | STRUCTS,
    error_details=st.none() | STRUCTS,
)
PLAIN = Job(
    id=JobId("j"),
    user_id="u",
    job_type="t",
    create_time=Instant(0),
    update_time=Instant(-1),
    queue_timeout=Micros(1),
)


def expected(job: Job, payloads: Payloads = NO_PAYLOADS, *, to_owner: bool = False) -> job_pb2.Job:
    """Make the message field by field, as protobuf's own code has it."""
    message = job_pb2.Job(
        id=job.id,
        user_id=job.user_id,
        job_type=job.job_type,
        status=job_pb2.JobStatus.Value(f"JOB_STATUS_{job.status.value}"),
        progress=job.progress,
        progress_message=job.progress_message,
        labels=job.labels,
        attempt=job.attempt,
        retry_policy=job_pb2.RetryPolicy(
            max_attempts=job.attempts_allowed, backoff_multiplier=job.backoff_multiplier
        ),
        worker_id=job.worker_id,
        held=job.lease_expire_time is not None,
        cancel_reason=job.cancel_reason,
        traceparent=job.traceparent,
        version=job.version,
        origin_job_id=job.origin_job_id or "",
        priority=job.priority,
        fairness_key=job.fairness_key or job.user_id,
        concurrency_key=job.concurrency_key,
        unique_key=job.unique_key,
        request_id=job.request_id if to_owner else "",
    )
    message.retry_policy.initial_backoff.FromMicroseconds(job.initial_backoff)
    message.retry_policy.max_backoff.FromMicroseconds(job.max_backoff)
    due = job.schedule_time if job.retry_time is None else job.retry_time
    if due is not None:
        message.schedule_time.FromMicroseconds(due)
    for name in (
        *("create_time", "start_time", "update_time", "complete_time", "lease_expire_time"),
        *("queue_expire_time", "run_expire_time", "cancel_request_time", "progress_time"),
    ):
        instant = getattr(job, name)
        if instant is not None:
            getattr(message, name).FromMicroseconds(instant)
    if job.stall_timeout is not None:
        message.stall_timeout.FromMicroseconds(job.stall_timeout)
    for name in ("parameters", "checkpoint", "result"):
        payload = getattr(payloads, name)
        if payload is not None:
            getattr(message, name).SetInParent()
            getattr(message, name).MergeFromString(payload)
    if job.last_error is not None:
        message.last_error.SetInParent()
        message.last_error.reason = job.last_error.reason
        message.last_error.message = job.last_error.message
    if job.error is not None:
        message.error.SetInParent()
        message.error.reason = job.error.reason
        message.error.message = job.error.message
        if payloads.error_details is not None:
            message.error.details.SetInParent()
            message.error.details.MergeFromString(payloads.error_details)
    return message


@settings(max_examples=50)  # each draws a value for all of some forty fields
@given(JOBS, CONTENTS)
@example(PLAIN, Payloads(parameters=Payload(b"")))
def test_a_serialized_job_is_the_message_that_protobuf_makes(job: Job, payloads: Payloads) -> None:
    message, serialized = expected(job, payloads), job_bytes(job, payloads)
    assert job_pb2.Job.FromString(serialized) == message
    assert len(serialized) == message.ByteSize(), "nothing is in it twice, and no default"
    assert job_pb2.Job.FromString(job_bytes(job)) == expected(job)
    to_owner = job_pb2.Job.FromString(job_bytes(job, to_owner=True))
    assert to_owner == expected(job, to_owner=True)


@settings(max_examples=20)
@given(st.lists(JOBS, max_size=3))
def test_responses_hold_their_jobs(jobs: list[Job]) -> None:
    batch = worker_service_pb2.ClaimJobsResponse.FromString(
        jobs_response(worker_service_pb2.ClaimJobsResponse, map(job_bytes, jobs))
    )
    assert list(batch.jobs) == [expected(job) for job in jobs]
    payloads = Payloads(parameters=Payload(b"\n\x00"))
    for job in jobs:
        data = job_response(job_service_pb2.GetJobResponse, job, payloads)
        assert job_service_pb2.GetJobResponse.FromString(data).job == expected(job, payloads)


@settings(max_examples=20)
@given(JOBS, st.integers(0, 2))
def test_a_message_of_a_watch_holds_its_job_and_transitions(job: Job, steps: int) -> None:
    step = Transition(
        job_id=job.id,
        from_status=JobStatus.QUEUED,
        to_status=JobStatus.PROCESSING,
        version=2,
        attempt=1,
        actor=job.user_id,
        reason="",
        time=job.create_time,
    )
    for to_owner in (False, True):
        sent = job_service_pb2.WatchJobResponse.FromString(
            watch_message(job, [step] * steps, to_owner=to_owner)
        )
        assert sent.job == expected(job, to_owner=to_owner)
        assert len(sent.transitions) == steps
        assert not sent.heartbeat
