"""Watching many jobs over servers that misbehave, with both clients."""

import asyncio
import logging
import threading

import grpc
import pytest

from jobledger import (
    AccessDenied,
    AsyncClient,
    Client,
    InvalidToken,
    JobledgerError,
    ResumeTokenExpired,
    Unavailable,
)
from jobledger.core import reconnecting
from tests.e2e.client.both_clients import BOTH

EXPIRED = (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
FOREIGN = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN")


def told(messages):
    return ["synced" if m.synced else f"{m.job.id}{m.job.version}" for m in messages]


def tokens(server):
    return [request.resume_token for request in server.requests]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.OK,
    ],
)
@pytest.mark.parametrize("collect_jobs", BOTH, indirect=True)
async def test_a_broken_stream_is_resumed_after_the_last_message(fault_server, collect_jobs, code):
    say, news = fault_server.says, fault_server.news
    breaks = fault_server.aborts(code) if code is not grpc.StatusCode.OK else None
    say(news("1", "a"), then=breaks)
    say(news("2", "b"), news("3", synced=True), news("4", "a", 2), then=breaks)
    say(then=breaks)
    say(news("5", heartbeat=True), then=breaks)
    say(news("6", synced=True), news("7", "b", 2, deleted=True), then=fault_server.falls_silent)
    messages = await collect_jobs(fault_server.target, 5)
    assert told(messages) == ["a1", "b1", "synced", "a2", "b2"]
    assert messages[-1].deleted
    assert tokens(fault_server) == ["", "1", "4", "4", "5"]
    assert {request.user_id for request in fault_server.requests} == {"ada"}


async def test_a_stream_at_its_maximum_age_is_replaced_without_notice(
    fault_server, collect_jobs, caplog
):
    caplog.set_level(logging.INFO, "jobledger")
    say, news = fault_server.says, fault_server.news
    say(news("1", "a"), then=fault_server.moves())
    say(news("2", synced=True), news("3", "a", 2), then=fault_server.moves())
    say(news("4", synced=True), news("5", "a", 3), then=fault_server.falls_silent)
    messages = await collect_jobs(fault_server.target, 4, reconnect_timeout=0)
    assert told(messages) == ["a1", "synced", "a2", "a3"]
    assert tokens(fault_server) == ["", "1", "3"]
    # Of ours: grpc.aio can still have something to say of an earlier test's event loop.
    assert [r for r in caplog.records if r.name.startswith("jobledger")] == []


async def test_a_silent_feed_stream_is_cancelled_and_resumed(
    fault_server, collect_jobs, monkeypatch
):
    monkeypatch.setattr(reconnecting, "MAX_SILENCE", 0.3)
    fault_server.says(fault_server.news("1", "a"), then=fault_server.falls_silent)
    fault_server.says(fault_server.news("2", "a", 2))
    assert told(await collect_jobs(fault_server.target, 2)) == ["a1", "a2"]
    assert tokens(fault_server) == ["", "1"]
    assert await asyncio.to_thread(fault_server.ended.wait, 10)


@pytest.mark.parametrize("refusal", [EXPIRED, FOREIGN])
@pytest.mark.parametrize("own", ["", "mine"])
async def test_on_gap_is_called_between_the_old_changes_and_the_new_listing(
    fault_server, collect_jobs, refusal, own
):
    say, news = fault_server.says, fault_server.news
    say(news("1", "a"), news("2", synced=True))
    say(then=fault_server.refuses(fault_server.rich(*refusal)))
    say(news("9", "b"), news("10", synced=True), then=fault_server.falls_silent)
    gaps = []

    def on_gap(error):
        gaps.append((error.reason, len(fault_server.requests)))

    messages = await collect_jobs(fault_server.target, 4, resume_token=own, on_gap=on_gap)
    assert told(messages) == ["a1", "synced", "b1", "synced"]
    assert gaps == [(refusal[1], 2)]
    assert tokens(fault_server) == [own, "2", ""]


@pytest.mark.parametrize("refusal", [EXPIRED, FOREIGN])
async def test_the_callers_own_token_refused_at_once_is_a_gap_too(
    fault_server, collect_jobs, refusal
):
    fault_server.says(then=fault_server.refuses(fault_server.rich(*refusal)))
    fault_server.says(fault_server.news("1", synced=True), then=fault_server.falls_silent)
    gaps = []
    messages = await collect_jobs(
        fault_server.target,
        1,
        resume_token="mine",
        on_gap=gaps.append,
        reconnect_timeout=0,
    )
    assert told(messages) == ["synced"]
    assert [gap.reason for gap in gaps] == [refusal[1]]


@pytest.mark.parametrize(
    ("refusal", "kind"), [(EXPIRED, ResumeTokenExpired), (FOREIGN, InvalidToken)]
)
async def test_without_on_gap_a_gap_is_an_error(fault_server, collect_jobs, refusal, kind):
    fault_server.says(fault_server.news("1", "a"))
    fault_server.says(then=fault_server.refuses(fault_server.rich(*refusal)))
    with pytest.raises(kind):
        await collect_jobs(fault_server.target, 2)
    assert len(fault_server.requests) == 2


async def test_an_exception_of_on_gap_ends_the_watch(fault_server, collect_jobs):
    def on_gap(error):
        raise error

    fault_server.says(fault_server.news("1", "a"))
    fault_server.says(then=fault_server.refuses(fault_server.rich(*EXPIRED)))
    with pytest.raises(ResumeTokenExpired):
        await collect_jobs(fault_server.target, 2, on_gap=on_gap)
    assert len(fault_server.requests) == 2


async def test_the_async_client_awaits_on_gap_before_it_lists_again(fault_server):
    fault_server.says(then=fault_server.refuses(fault_server.rich(*EXPIRED)))
    fault_server.says(fault_server.news("1", synced=True), then=fault_server.falls_silent)
    seen = []

    async def on_gap(error):
        # Long enough for a watch that does not wait to have asked again.
        await asyncio.sleep(0.3)
        seen.append(len(fault_server.requests))

    async with (
        AsyncClient(fault_server.target, user_id="ada") as client,
        client.watch_jobs(resume_token="mine", on_gap=on_gap) as news,
    ):
        assert (await anext(news)).synced
    assert seen == [1]


async def test_other_refusals_are_raised(fault_server, collect_jobs):
    denied = fault_server.rich(grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")
    fault_server.says(then=fault_server.refuses(denied))
    with pytest.raises(AccessDenied):
        await collect_jobs(fault_server.target, 1, all_users=True, on_gap=print)


async def test_a_server_that_never_answered_is_an_error_after_connect_timeout(collect_jobs):
    with pytest.raises(Unavailable):
        await collect_jobs("127.0.0.1:1", 1, connect_timeout=0.3)


async def test_connect_timeout_ends_with_the_first_message(fault_server, collect_jobs):
    fault_server.says(fault_server.news("1", "a"))
    for _ in range(3):
        fault_server.says(then=fault_server.aborts(grpc.StatusCode.UNAVAILABLE))
    fault_server.says(fault_server.news("2", "b"))
    messages = await collect_jobs(fault_server.target, 2, connect_timeout=0)
    assert told(messages) == ["a1", "b1"]


def test_closing_the_client_ends_its_watches_with_an_error(fault_server):
    fault_server.says(fault_server.news("1", "a"), then=fault_server.falls_silent)
    client = Client(fault_server.target, user_id="ada")
    news = client.watch_jobs()
    next(news)
    closing = threading.Thread(target=client.close)
    closing.start()
    with pytest.raises(JobledgerError, match="closed"):
        next(news)
    closing.join()
