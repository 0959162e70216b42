"""Jobs as Python values: what they are equal by, how they travel, what they refuse."""

import copy
import dataclasses
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.json_format import ParseDict

from jobledger import (
    Asset,
    Attempt,
    AttemptOutcome,
    ConcurrencyLimit,
    EndedJobs,
    Explanation,
    Job,
    JobError,
    JobStatus,
    JobTypeStats,
    JobView,
    Pause,
    PriorityStats,
    RetryPolicy,
    Transition,
)
from jobledger.v1 import asset_pb2, job_pb2, queue_service_pb2
from tests.support.creations import sample_of

MESSAGE = ParseDict(
    {
        "id": "j",
        "user_id": "ada",
        "job_type": "render",
        "status": "JOB_STATUS_FAILED",
        "version": 7,
        "progress": 40,
        "progress_message": "on it",
        "parameters": {"frames": 240, "scale": 0.5, "deep": {"list": [1, None, True]}},
        "result": {},
        "error": {"reason": "NO_DISK", "message": "disk full", "details": {"free": 0}},
        "labels": {"team": "a"},
        "attempt": 2,
        "retry_policy": {
            "max_attempts": 3,
            "initial_backoff": "0.5s",
            "max_backoff": "300s",
            "backoff_multiplier": 1.5,
        },
        "schedule_time": "2026-11-26T13:00:00Z",
        "last_error": {"reason": "TIMEOUT", "message": "no answer"},
        "checkpoint": {"frame": 96},
        "origin_job_id": "i",
        "priority": 7,
        "fairness_key": "team-a",
        "concurrency_key": "stripe:7",
        "unique_key": "order-1",
        "worker_id": "w",
        "held": True,
        "create_time": "2026-11-26T12:00:00.000001Z",
        "complete_time": "2026-11-26T12:00:01Z",
        "cancel_reason": "no",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "stall_timeout": "90.5s",
        "retention": "3600s",
        "progress_time": "2026-11-26T12:00:00.5Z",
    },
    job_pb2.Job(),
)


@pytest.fixture
def job():
    return Job.from_proto(MESSAGE)


def test_a_message_becomes_plain_values(job):
    assert job.status is JobStatus.FAILED
    assert type(job.parameters["frames"]) is int
    assert job.create_time == datetime(2026, 11, 26, 12, 0, 0, 1, tzinfo=UTC)
    assert job.complete_time - job.create_time == timedelta(microseconds=999_999)
    assert job.error == JobError("disk full", reason="NO_DISK", details={"free": 0})
    assert job.stall_timeout == timedelta(seconds=90.5)
    assert job.retry_policy.max_backoff == timedelta(minutes=5)


def test_only_a_job_in_the_view_basic_has_no_parameters_at_all():
    empty = job_pb2.Job(id="j")
    assert Job.from_proto(empty, JobView.FULL).parameters == {}
    assert Job.from_proto(empty, JobView.BASIC).parameters is None
    assert (
        Job(id="j", job_type="t").to_proto()
        == Job(id="j", job_type="t", parameters=None).to_proto()
    )


def test_every_field_of_the_contract_is_there():
    for message, kind in (
        (job_pb2.Job, Job),
        (job_pb2.JobError, JobError),
        (job_pb2.RetryPolicy, RetryPolicy),
        (job_pb2.JobTransition, Transition),
        (job_pb2.Attempt, Attempt),
        (asset_pb2.Asset, Asset),
        (queue_service_pb2.Pause, Pause),
        (queue_service_pb2.EndedJobs, EndedJobs),
        (queue_service_pb2.PriorityStats, PriorityStats),
        (queue_service_pb2.JobTypeStats, JobTypeStats),
        (queue_service_pb2.ConcurrencyLimit, ConcurrencyLimit),
        (queue_service_pb2.ExplainJobResponse, Explanation),
    ):
        names = {field.name for field in dataclasses.fields(kind)}
        of_the_call = {"existing"} if kind is Job else set()
        assert names - of_the_call == set(message.DESCRIPTOR.fields_by_name), kind


def test_a_job_goes_to_its_message_and_back(job):
    assert job.to_proto() == MESSAGE
    every = job_pb2.Job(**{each.name: sample_of(each) for each in MESSAGE.DESCRIPTOR.fields})
    every.MergeFrom(MESSAGE)
    assert Job.from_proto(every).to_proto() == every


def test_an_asset_and_a_transition_go_to_their_messages_and_back():
    asset = ParseDict(
        {
            "id": "a",
            "job_id": "j",
            "user_id": "ada",
            "asset_type": "image/png",
            "url": "https://example.com/a.png",
            "storage_path": "a.png",
            "file_size": 2**40,
            "create_time": "2026-11-26T12:00:00Z",
        },
        asset_pb2.Asset(),
    )
    assert Asset.from_proto(asset).to_proto() == asset
    assert Asset.from_proto(asset).file_size == 2**40
    step = ParseDict(
        {
            "job_id": "j",
            "from_status": "JOB_STATUS_QUEUED",
            "to_status": "JOB_STATUS_PROCESSING",
            "version": 2,
            "attempt": 1,
            "actor": "w",
            "time": "2026-11-26T12:00:00Z",
        },
        job_pb2.JobTransition(),
    )
    assert Transition.from_proto(step).to_proto() == step


def test_an_asset_to_link_has_what_a_worker_gives():
    asset = Asset("image/png", url="https://example.com/a.png", file_size=7, id="a", job_id="j")
    assert asset.to_new_proto() == asset_pb2.NewAsset(
        asset_type="image/png", url="https://example.com/a.png", file_size=7
    )


def test_an_attempt_that_runs_has_neither_an_end_nor_an_outcome():
    start = {"number": 2, "worker_id": "w", "start_time": "2026-11-26T12:00:00Z", "progress": 40}
    attempt = Attempt.from_proto(ParseDict(start, job_pb2.Attempt()))
    assert attempt == Attempt(
        number=2,
        worker_id="w",
        start_time=datetime(2026, 11, 26, 12, tzinfo=UTC),
        end_time=None,
        outcome=None,
        error=None,
        progress=40,
    )
    end = {
        "end_time": "2026-11-26T12:00:01Z",
        "outcome": "ATTEMPT_OUTCOME_STALLED",
        "error": {"reason": "STALLED", "message": "no news"},
    }
    ended = Attempt.from_proto(ParseDict({**start, **end}, job_pb2.Attempt()))
    assert ended.end_time == datetime(2026, 11, 26, 12, 0, 1, tzinfo=UTC)
    assert ended.outcome is AttemptOutcome.STALLED
    assert ended.error == JobError("no news", reason="STALLED")


def test_every_outcome_of_the_contract_has_its_name():
    for name, number in job_pb2.AttemptOutcome.items():
        outcome = AttemptOutcome.from_proto(number)
        assert outcome == (name.removeprefix("ATTEMPT_OUTCOME_") if number else None)
    assert AttemptOutcome.from_proto(99) is AttemptOutcome.UNKNOWN


@pytest.mark.parametrize(
    ("status", "held", "waits"),
    [("PROCESSING", False, True), ("PROCESSING", True, False), ("QUEUED", False, False)],
)
def test_a_job_waits_if_it_was_started_and_nobody_holds_it(status, held, waits):
    job = Job(id="j", job_type="t", status=JobStatus(status), held=held)
    assert job.awaits_retry is waits


def test_jobs_are_equal_by_id_and_version(job):
    same = dataclasses.replace(job, progress=41)
    newer = dataclasses.replace(job, version=8)
    assert job == same
    assert len({job, same, newer}) == 2
    assert job != newer
    assert job != "j"


def test_jobs_can_be_pickled_and_copied(job):
    for other in (pickle.loads(pickle.dumps(job)), copy.deepcopy(job)):
        assert other == job
        assert other.to_proto() == MESSAGE


def test_a_job_cannot_be_changed(job):
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.progress = 1


def test_a_status_knows_whether_it_is_terminal():
    terminal = {status for status in JobStatus if status.is_terminal}
    assert terminal == {JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED}
    assert JobStatus("QUEUED") is JobStatus.QUEUED
    assert f"{JobStatus.QUEUED}" == "QUEUED"


def test_a_status_of_a_newer_service_is_unknown():
    assert JobStatus.from_proto(99) is JobStatus.UNKNOWN
    assert not JobStatus.UNKNOWN.is_terminal


def test_a_job_that_a_program_makes_itself_needs_an_id_and_a_type():
    job = Job(id="j", job_type="render", parameters={"a": 1})
    assert job.to_proto().parameters["a"] == 1
    with pytest.raises(ValueError, match="create_time"):
        Job(id="j", job_type="t", create_time=datetime(2026, 1, 1)).to_proto()  # noqa: DTZ001
