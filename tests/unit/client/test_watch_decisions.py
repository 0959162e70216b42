"""The pure part of a watch: what is news, and when to try again."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo

from jobledger import (
    DeadlineExceeded,
    InternalError,
    JobledgerError,
    JobNotFound,
    LimitExceeded,
    Unauthenticated,
    Unavailable,
)
from jobledger.core.job_watch import JobWatch
from jobledger.core.reconnecting import (
    ATTEMPT,
    MAX_SILENCE,
    OLD,
    TOKEN_REFUSED,
    Pause,
    Why,
    may_reconnect,
    timed_out,
)
from jobledger.v1.job_pb2 import JOB_VIEW_BASIC, JOB_VIEW_FULL, Job, JobStatus
from jobledger.v1.job_service_pb2 import WatchJobRequest, WatchJobResponse

LOST = Unavailable("lost", code=grpc.StatusCode.UNAVAILABLE)


@pytest.fixture
def make(clock):
    def make(after_version=0, uniform=lambda low, high: high, view=JOB_VIEW_FULL, **options):
        request = WatchJobRequest(job_id="j", user_id="ada", after_version=after_version, view=view)
        return JobWatch(request, clock=clock, uniform=uniform, **options)

    return make


HEARTBEAT = WatchJobResponse(heartbeat=True)


def message(version, status="PROCESSING", **payloads):
    response = WatchJobResponse(
        job=Job(version=version, status=JobStatus.Value(f"JOB_STATUS_{status}"))
    )
    for name, fields in payloads.items():
        getattr(response.job, name).update(fields)
    return response


def test_only_greater_versions_are_updates(make):
    watch = make()
    given = [1, 1, 3, 2, 3, 4]
    assert [bool(watch.accept(message(version))) for version in given] == [
        True, False, True, False, False, True,
    ]  # fmt: skip
    assert watch.request() == WatchJobRequest(
        job_id="j", user_id="ada", after_version=4, view=JOB_VIEW_FULL
    )


def test_heartbeats_are_no_updates(make):
    watch = make()
    assert watch.accept(message(1))
    assert not watch.accept(HEARTBEAT)
    assert not watch.ended
    assert watch.request().after_version == 1


def test_a_message_without_news_is_a_heartbeat_with_the_newest_job_that_is_known(make):
    watch = make(after_version=5, heartbeats=True)
    assert not watch.accept(message(3))
    assert not watch.accept(HEARTBEAT)
    for given, version in ((message(5), 5), (message(6), None), (HEARTBEAT, 6), (message(2), 6)):
        (change,) = watch.accept(given)
        assert (change.heartbeat, change.job.version) == (version is not None, version or 6)


def test_a_version_that_the_caller_has_seen_is_no_update(make):
    watch = make(after_version=5)
    assert not watch.accept(message(5))
    assert watch.accept(message(6))


def test_each_update_in_the_view_full_is_complete_although_payloads_come_once(make):
    watch = make()
    given = [message(1, parameters={"a": 1}), message(2), message(3, "COMPLETED", result={"b": 2})]
    jobs = [change.job for each in given for change in watch.accept(each)]
    assert [(job.parameters, job.result) for job in jobs] == [
        ({"a": 1}, None),
        ({"a": 1}, None),
        ({"a": 1}, {"b": 2}),
    ]


def test_parameters_are_known_from_a_message_that_is_no_update(make):
    watch = make(after_version=5)
    assert not watch.accept(message(5, parameters={"a": 1}))
    (change,) = watch.accept(message(6))
    assert change.job.parameters == {"a": 1}


def test_a_job_without_parameters_has_empty_ones_in_the_view_full_alone(make):
    for view, parameters in ((JOB_VIEW_FULL, {}), (JOB_VIEW_BASIC, None)):
        (change,) = make(view=view).accept(message(1))
        assert change.job.parameters == parameters


@pytest.mark.parametrize("status", ["COMPLETED", "PARTIAL", "FAILED"])
@pytest.mark.parametrize("version", [3, 5, 6])
def test_the_terminal_state_is_an_update_at_any_version_and_ends_the_watch(make, status, version):
    watch = make(after_version=5)
    assert not watch.ended
    assert watch.accept(message(version, status))
    assert watch.ended


def test_pauses_double_up_to_five_seconds(make):
    watch = make()
    assert [watch.broken(LOST).seconds for _ in range(9)] == [
        0.1,
        0.2,
        0.4,
        0.8,
        1.6,
        3.2,
        5.0,
        5.0,
        5.0,
    ]
    for _ in range(2000):
        assert watch.broken(LOST).seconds == 5.0


def test_pauses_have_full_jitter(make):
    watch = make(uniform=lambda low, high: low)
    assert {watch.broken(LOST).seconds for _ in range(9)} == {0.0}


@pytest.mark.parametrize("heard", [message(7), HEARTBEAT])
def test_pauses_restart_after_a_message(make, heard):
    watch = make(after_version=5)
    for _ in range(5):
        watch.broken(LOST)
    watch.accept(heard)
    assert watch.broken(LOST).seconds == 0.1


def test_pauses_keep_growing_if_each_stream_breaks_after_its_first_message(make):
    watch = make(after_version=5)
    pauses = []
    for _ in range(4):
        watch.accept(message(5))
        pauses.append(watch.broken(LOST).seconds)
    assert pauses == [0.1, 0.2, 0.4, 0.8]


def test_the_servers_retry_delay_is_the_minimum_and_gets_jitter(make):
    retry = RetryInfo(retry_delay=Duration(seconds=2))
    told = Unavailable("drains", code=grpc.StatusCode.UNAVAILABLE, details=[retry])
    assert make(uniform=lambda low, high: low).broken(told).seconds == 2.0
    assert make().broken(told).seconds == 2.1


MOVED = Unavailable(
    "old", code=grpc.StatusCode.UNAVAILABLE, details=[RetryInfo(retry_delay=Duration())]
)


def test_moving_an_old_stream_is_no_failure(make, clock):
    watch = make(after_version=5, reconnect_timeout=0)
    for _ in range(20):
        watch.opens()
        watch.accept(message(5))
        clock.now += OLD
        assert watch.broken(MOVED) == Pause(0.1, Why.MOVED)


def test_the_time_to_reconnect_counts_from_the_move(make, clock):
    watch = make(reconnect_timeout=10)
    watch.opens()
    watch.accept(message(1))
    clock.now += 3600
    watch.broken(MOVED)
    assert watch.max_silence() == 10
    clock.now += 9
    assert watch.broken(LOST).why is Why.LOST
    clock.now += 1
    with pytest.raises(Unavailable):
        watch.broken(LOST)


def test_pauses_grow_if_new_streams_are_moved(make):
    watch = make(after_version=5)
    pauses = []
    for _ in range(4):
        watch.opens()
        watch.accept(message(5))
        pauses.append(watch.broken(MOVED).seconds)
    assert pauses == [0.1, 0.2, 0.4, 0.8]


def test_a_stream_without_a_message_counts_as_failed_and_not_as_moved(make):
    with pytest.raises(Unavailable):
        make(connect_timeout=0).broken(MOVED)


def test_a_watch_that_never_connected_is_limited_by_the_connect_timeout(make, clock):
    watch = make(connect_timeout=10)
    assert watch.max_silence() == 10
    watch.broken(LOST)
    clock.now += 9
    watch.accept(message(1))
    clock.now += 3600
    watch.broken(LOST)
    assert watch.max_silence() == MAX_SILENCE
    given_up = make(connect_timeout=10)
    clock.now += 10
    with pytest.raises(Unavailable):
        given_up.broken(LOST)


@pytest.mark.parametrize(
    ("failure", "transient"),
    [
        (LOST, True),
        (JobledgerError("", code=grpc.StatusCode.CANCELLED), True),
        (LimitExceeded("", code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="LIMIT_EXCEEDED"), True),
        (DeadlineExceeded("", code=grpc.StatusCode.DEADLINE_EXCEEDED), True),
        (InternalError("RST_STREAM", code=grpc.StatusCode.INTERNAL), True),
        (JobledgerError("502", code=grpc.StatusCode.UNKNOWN), True),
        (InternalError("bug", code=grpc.StatusCode.INTERNAL, reason="INTERNAL"), False),
        (JobNotFound("", code=grpc.StatusCode.NOT_FOUND, reason="JOB_NOT_FOUND"), False),
        (JobledgerError("", code=grpc.StatusCode.UNIMPLEMENTED), False),
        (JobledgerError("", code=grpc.StatusCode.UNAUTHENTICATED), False),
    ],
)
def test_only_errors_that_a_new_stream_may_fix_are_retried(make, failure, transient):
    assert may_reconnect(failure) is transient
    if not transient:
        with pytest.raises(type(failure)) as raised:
            make().broken(failure)
        assert raised.value is failure


def test_without_a_reconnect_timeout_it_never_gives_up(make, clock):
    watch = make()
    for _ in range(1000):
        clock.now += 3600
        watch.broken(LOST)


def test_the_reconnect_timeout_counts_from_the_break_not_from_the_last_message(make, clock):
    watch = make(reconnect_timeout=10)
    watch.accept(message(1))
    clock.now += 14
    watch.broken(LOST)
    clock.now += 9
    watch.broken(LOST)
    clock.now += 1
    with pytest.raises(Unavailable) as raised:
        watch.broken(LOST)
    assert raised.value is LOST


def test_any_message_starts_the_reconnect_timeout_anew(make, clock):
    watch = make(after_version=5, reconnect_timeout=10)
    for _ in range(5):
        watch.broken(LOST)
        clock.now += 6
        watch.accept(message(5))


def test_a_reconnect_timeout_of_zero_never_reconnects(make):
    watch = make(reconnect_timeout=0)
    watch.accept(message(1))
    with pytest.raises(Unavailable):
        watch.broken(LOST)


def test_a_stream_may_be_silent_for_three_heartbeats(make, clock):
    watch = make(reconnect_timeout=10)
    watch.accept(message(1))
    clock.now += 3600
    assert watch.max_silence() == MAX_SILENCE == 45.0


def test_a_reconnect_is_tried_even_shortly_before_the_timeout(make, clock):
    watch = make(connect_timeout=20)
    assert watch.max_silence() == 20
    clock.now += 19
    assert watch.max_silence() == ATTEMPT


def test_waiting_for_a_job_times_out_with_the_last_error_as_cause(make, clock):
    watch = make(timeout=8)
    watch.accept(message(1))
    assert watch.max_silence() == 8
    assert watch.broken(LOST).seconds == 0.1
    clock.now += 9
    assert watch.max_silence() == 0
    with pytest.raises(DeadlineExceeded, match="did not finish within 8 s: ") as raised:
        watch.broken(LOST)
    assert raised.value.__cause__ is LOST


def test_a_timeout_of_the_wait_itself_names_no_other_cause(make, clock):
    watch = make(timeout=8)
    watch.accept(message(1))
    clock.now += 9
    with pytest.raises(DeadlineExceeded, match=r"did not finish within 8 s$"):
        watch.broken(timed_out("host"))


EXPIRED = Unauthenticated("needs a valid identity", code=grpc.StatusCode.UNAUTHENTICATED)


def test_a_watch_asks_for_another_token_for_a_while_if_one_was_accepted(make, clock):
    watch = make(renews_token=True)
    with pytest.raises(Unauthenticated):
        watch.broken(EXPIRED)  # no token was ever accepted
    watch.received(progress=True)
    assert watch.broken(EXPIRED).why is Why.LOST
    clock.now += TOKEN_REFUSED - 1
    watch.broken(EXPIRED)
    watch.received(progress=True)
    clock.now += TOKEN_REFUSED
    watch.broken(EXPIRED)
    clock.now += TOKEN_REFUSED
    with pytest.raises(Unauthenticated):
        watch.broken(EXPIRED)


def test_a_fixed_token_that_was_accepted_before_is_an_error_that_says_what_to_give(make):
    watch = make()
    watch.received(progress=True)
    with pytest.raises(Unauthenticated, match="give the client a function as `token`"):
        watch.broken(EXPIRED)
