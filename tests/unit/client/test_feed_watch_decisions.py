"""The pure part of a watch of many jobs: what the caller gets, and where it goes on."""

import time

import grpc
import pytest

from jobledger import (
    InvalidField,
    InvalidToken,
    ResumeTokenExpired,
    Unavailable,
)
from jobledger.core.feed_watch import CompletionWatch, FeedWatch
from jobledger.core.reconnecting import Pause, Why
from jobledger.v1.job_pb2 import (
    JOB_STATUS_COMPLETED,
    JOB_STATUS_PROCESSING,
    JOB_STATUS_QUEUED,
    JOB_VIEW_BASIC,
    JOB_VIEW_FULL,
    Job,
    JobTransition,
)
from jobledger.v1.job_service_pb2 import JobChange, WatchJobsRequest, WatchJobsResponse

LOST = Unavailable("lost", code=grpc.StatusCode.UNAVAILABLE)
EXPIRED = ResumeTokenExpired("old", code=grpc.StatusCode.OUT_OF_RANGE)
INVALID = InvalidToken("foreign", code=grpc.StatusCode.INVALID_ARGUMENT)
GAP = Pause(0.1, Why.GAP)


@pytest.fixture
def make():
    def make(*, relist=True, heartbeats=False, **options):
        limits = {name: options.pop(name) for name in [*options] if name.endswith("timeout")}
        request = WatchJobsRequest(user_id="ada", job_types=["render"], **options)
        return FeedWatch(
            request,
            relist=relist,
            heartbeats=heartbeats,
            clock=time.monotonic,
            uniform=lambda low, high: high,
            **limits,
        )

    return make


QUEUED_VERSION = 2
"""Of a job that was updated before its start."""


def job(token, version=1, **fields):
    status = JOB_STATUS_QUEUED if version in (1, QUEUED_VERSION) else JOB_STATUS_PROCESSING
    change = JobChange(job=Job(id="j", version=version, status=status), **fields)
    return WatchJobsResponse(changes={"changes": [change]}, resume_token=token)


def synced(token):
    return WatchJobsResponse(synced=True, resume_token=token)


def heartbeat(token):
    return WatchJobsResponse(heartbeat=True, resume_token=token)


def test_the_caller_gets_jobs_and_one_synced_but_no_heartbeats(make):
    watch = make()
    given = [job("1"), synced("2"), heartbeat("3"), job("4", deleted=True)]
    assert [bool(watch.accept(message)) for message in given] == [True, True, False, True]


def told(events):
    return [(event.job and event.job.id, event.synced, event.resume_token) for event in events]


def test_only_the_last_change_of_a_message_has_its_token(make):
    """A caller that stores the token of an earlier one repeats changes, and skips none."""
    watch = make(resume_token="mine")
    message = WatchJobsResponse(
        changes={"changes": [JobChange(job=Job(id=each)) for each in "abc"]}, resume_token="1"
    )
    assert told(watch.accept(message)) == [
        ("a", False, "mine"),
        ("b", False, "mine"),
        ("c", False, "1"),
    ]
    message.resume_token = "2"
    assert told(watch.accept(message)) == [
        ("a", False, "1"),
        ("b", False, "1"),
        ("c", False, "2"),
    ]
    assert told(watch.accept(synced("3"))) == [(None, True, "3")]
    assert watch.request().resume_token == "3"


def test_content_that_is_newer_than_the_client_is_passed_over(make):
    watch = make()
    assert watch.accept(WatchJobsResponse(resume_token="1")) == []
    assert told(watch.accept(job("2"))) == [("j", False, "2")]
    assert watch.request().resume_token == "2"


def test_a_message_without_news_is_a_heartbeat_with_its_token_if_they_are_wanted(make):
    watch = make(heartbeats=True)
    given = [heartbeat("1"), synced("2"), job("3"), synced("4"), heartbeat("5")]
    events = [event for message in given for event in watch.accept(message)]
    assert [(e.heartbeat, e.resume_token) for e in events] == [
        (True, "1"), (False, "2"), (False, "3"), (True, "4"), (True, "5"),
    ]  # fmt: skip


def test_a_feed_watch_resumes_after_the_last_message_with_the_same_filters(make):
    watch = make(labels={"k": "v"})
    assert watch.request().resume_token == ""
    for message in (job("1"), synced("2"), job("3"), heartbeat("4")):
        watch.accept(message)
        assert watch.request() == WatchJobsRequest(
            user_id="ada",
            job_types=["render"],
            labels={"k": "v"},
            resume_token=message.resume_token,
        )


def test_a_message_without_a_token_leaves_the_cursor(make):
    watch = make(resume_token="mine")
    watch.accept(job(""))
    assert watch.request().resume_token == "mine"


def test_synced_of_a_resumed_stream_is_not_another_listing(make):
    watch = make()
    assert watch.accept(synced("1"))
    watch.broken(LOST)
    assert not watch.accept(synced("2"))
    assert watch.request().resume_token == "2"


def test_an_interrupted_listing_is_synced_by_the_stream_that_completes_it(make):
    watch = make()
    watch.accept(job("1"))
    watch.broken(LOST)
    assert watch.accept(synced("2"))


def test_a_watch_resumed_by_the_callers_token_yields_synced_once(make):
    watch = make(resume_token="mine")
    assert watch.accept(synced("1"))
    watch.broken(LOST)
    assert not watch.accept(synced("2"))


@pytest.mark.parametrize("refusal", [EXPIRED, INVALID])
@pytest.mark.parametrize("own", ["mine", ""])
def test_a_refused_token_restarts_the_listing(make, refusal, own):
    watch = make(resume_token=own)
    watch.accept(synced("1"))
    watch.broken(LOST)
    assert watch.broken(refusal).why is Why.GAP
    assert watch.request().resume_token == ""
    assert watch.accept(synced("2"))


@pytest.mark.parametrize("refusal", [EXPIRED, INVALID])
def test_a_refused_token_is_raised_without_on_gap(make, refusal):
    watch = make(relist=False, resume_token="mine")
    with pytest.raises(type(refusal)) as raised:
        watch.broken(refusal)
    assert raised.value is refusal


@pytest.mark.parametrize("refusal", [EXPIRED, INVALID])
def test_a_token_refusal_is_raised_if_no_token_was_sent(make, refusal):
    with pytest.raises(type(refusal)):
        make().broken(refusal)


def test_other_refusals_are_no_gaps(make):
    invalid = InvalidField("labels", code=grpc.StatusCode.INVALID_ARGUMENT)
    with pytest.raises(InvalidField):
        make(resume_token="mine").broken(invalid)


def test_a_new_listing_does_not_count_as_a_reconnect(make):
    watch = make(resume_token="mine", connect_timeout=0, reconnect_timeout=0)
    assert watch.broken(EXPIRED) == GAP
    with pytest.raises(Unavailable):
        watch.broken(LOST)


def test_pauses_grow_if_listings_follow_each_other(make):
    watch = make()
    pauses = []
    for _ in range(4):
        watch.accept(synced("1"))
        pauses.append(watch.broken(INVALID).seconds)
    assert pauses == [0.1, 0.2, 0.4, 0.8]


@pytest.mark.parametrize("heard", [job("1"), heartbeat("1")])
def test_pauses_restart_after_a_change_but_not_after_synced(make, heard):
    watch = make()
    for _ in range(3):
        watch.accept(synced("0"))
        watch.broken(LOST)
    assert watch.broken(LOST).seconds == 0.8
    watch.accept(heard)
    assert watch.broken(LOST).seconds == 0.1


# --- payloads -------------------------------------------------------------------------------------


STEP = [JobTransition(to_status=JOB_STATUS_PROCESSING)]


@pytest.mark.parametrize(
    ("before", "message", "has_payloads"),
    [
        ([], job("1", 5), True),
        ([synced("1")], job("2", 5), False),
        ([synced("1")], job("2", 1), True),
        ([synced("1")], job("2", QUEUED_VERSION), True),
        ([synced("1")], job("2", 5, transitions=STEP), True),
        ([synced("1")], job("2", 5, transitions=STEP, deleted=True), False),
        ([synced("1"), EXPIRED], job("2", 5), True),
    ],
)
def test_an_event_says_whether_its_job_has_its_payloads(make, before, message, has_payloads):
    for view in (JOB_VIEW_FULL, JOB_VIEW_BASIC):
        watch = make(view=view)
        for each in before:
            watch.broken(each) if each is EXPIRED else watch.accept(each)
        (event,) = watch.accept(message)
        is_full = has_payloads and view == JOB_VIEW_FULL
        assert event.job.parameters == ({} if is_full else None)


def test_a_watch_that_is_resumed_by_a_token_begins_with_changes_and_no_listing(make):
    (event,) = make(view=JOB_VIEW_FULL, resume_token="mine").accept(job("1", 5))
    assert event.job.parameters is None


# --- waiting for jobs -----------------------------------------------------------------------------


@pytest.fixture
def waiting():
    request = WatchJobsRequest(user_id="ada", job_ids=["a", "b", "c"])
    return CompletionWatch(request, clock=time.monotonic, uniform=lambda low, high: high)


def states(token, **jobs):
    statuses = {"active": JOB_STATUS_PROCESSING, "terminal": JOB_STATUS_COMPLETED, "deleted": 0}
    changes = [
        JobChange(job=Job(id=job_id, status=statuses[state]), deleted=state == "deleted")
        for job_id, state in jobs.items()
    ]
    return WatchJobsResponse(changes={"changes": changes}, resume_token=token)


def finished(watch, *messages):
    return [job_id for message in messages for ids in watch.accept(message) for job_id in ids]


def test_jobs_that_are_not_in_the_listing_may_have_finished_before(waiting):
    assert finished(waiting, states("1", a="active")) == []
    assert finished(waiting, synced("2")) == ["b", "c"]
    assert finished(waiting, states("3", a="terminal")) == ["a"]


def test_a_job_that_finished_or_was_deleted_is_read(waiting):
    assert finished(waiting, states("1", a="active", b="terminal", c="deleted")) == ["b", "c"]


def test_what_a_resumed_stream_omits_has_not_finished(waiting):
    finished(waiting, states("1", a="active", b="active"))
    waiting.broken(LOST)
    assert waiting.request().resume_token == "1"
    assert finished(waiting, states("2", c="active"), synced("3")) == []
    waiting.broken(LOST)
    assert finished(waiting, synced("4")) == []


@pytest.mark.parametrize("listed", [[], [synced("2")], [synced("2"), states("3", a="active")]])
def test_a_job_that_finished_in_a_gap_is_read_after_the_next_listing(waiting, listed):
    """A listing has no terminal jobs: what finished in a gap would be waited for indefinitely."""
    finished(waiting, states("1", a="active", b="active", c="active"), *listed)
    assert waiting.broken(EXPIRED).why is Why.GAP
    assert finished(waiting, states("9", b="active"), synced("10")) == ["a", "c"]


def test_each_message_is_an_occasion_to_read_again_what_could_not_be_read(waiting):
    for message in (synced("1"), heartbeat("2"), states("3", a="active")):
        assert len(waiting.accept(message)) == 1
