"""Watching many jobs over servers that misbehave, with both clients."""

import asyncio

import grpc
import pytest

from jobledger import (
    AsyncClient,
    ResumeTokenExpired,
)
from jobledger.core import reconnecting
from tests.e2e.client.both_clients import BOTH

EXPIRED = (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")


def told(messages):
    return ["synced" if m.synced else f"{m.job.id}{m.job.version}" for m in messages]


def tokens(server):
    return [request.resume_token for request in server.requests]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
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


async def test_a_silent_feed_stream_is_cancelled_and_resumed(
    fault_server, collect_jobs, monkeypatch
):
    monkeypatch.setattr(reconnecting, "MAX_SILENCE", 0.3)
    fault_server.says(fault_server.news("1", "a"), then=fault_server.falls_silent)
    fault_server.says(fault_server.news("2", "a", 2))
    assert told(await collect_jobs(fault_server.target, 2)) == ["a1", "a2"]
    assert tokens(fault_server) == ["", "1"]
    assert await asyncio.to_thread(fault_server.ended.wait, 10)


async def test_on_gap_is_called_between_the_old_changes_and_the_new_listing(
    fault_server, collect_jobs
):
    say, news = fault_server.says, fault_server.news
    say(news("1", "a"), news("2", synced=True))
    say(then=fault_server.refuses(fault_server.rich(*EXPIRED)))
    say(news("9", "b"), news("10", synced=True), then=fault_server.falls_silent)
    gaps = []

    def on_gap(error):
        gaps.append((error.reason, len(fault_server.requests)))

    messages = await collect_jobs(fault_server.target, 4, resume_token="mine", on_gap=on_gap)
    assert told(messages) == ["a1", "synced", "b1", "synced"]
    assert gaps == [("RESUME_TOKEN_EXPIRED", 2)]
    assert tokens(fault_server) == ["mine", "2", ""]


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
