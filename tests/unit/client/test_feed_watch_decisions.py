"""The pure part of a watch of many jobs: what the caller gets, and where it goes on."""

import grpc
import pytest

from jobledger import (
    InvalidField,
    InvalidToken,
    ResumeTokenExpired,
    Unavailable,
)
from jobledger.core.feed_watch import FeedWatch
from jobledger.core.reconnecting import Pause, Why
from jobledger.v1.job_pb2 import Job
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
            request, relist=relist, heartbeats=heartbeats, uniform=lambda low, high: high, **limits
        )

    return make


def job(token, version=1, **fields):
    change = JobChange(job=Job(id="j", version=version), **fields)
    return WatchJobsResponse(changes=[change], resume_token=token)


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


@pytest.mark.promise(number=40)
def test_only_the_last_change_of_a_message_has_its_token(make):
    """A caller that stores the token of an earlier one repeats changes, and skips none."""
    watch = make(resume_token="mine")
    message = WatchJobsResponse(
        changes=[JobChange(job=Job(id=each)) for each in "abc"], resume_token="1"
    )
    assert told(watch.accept(message)) == [
        ("a", False, "mine"),
        ("b", False, "mine"),
        ("c", False, "1"),
    ]
    message.resume_token = "2"
    message.synced = True
    assert told(watch.accept(message)) == [
        ("a", False, "1"),
        ("b", False, "1"),
        ("c", False, "1"),
        (None, True, "2"),
    ]
    assert watch.request().resume_token == "2"


def test_heartbeats_are_yielded_only_on_request(make):
    assert make(heartbeats=True).accept(heartbeat("1"))


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
