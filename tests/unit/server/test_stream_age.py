"""The age of streams, and when they are sent heartbeats."""

import asyncio

import pytest

from jobledger_server.admission.endings import StreamTooOld
from jobledger_server.rpc.stream_age import HEARTBEAT_STEP, StreamAge

HEARTBEAT = 15_000.0


async def test_streams_share_the_moments_of_their_heartbeats() -> None:
    time = asyncio.get_running_loop().time
    moments = set()
    for _ in range(100):
        before = time()
        wait = StreamAge(0).until_heartbeat(HEARTBEAT)
        assert HEARTBEAT * (1 - HEARTBEAT_STEP) - 1 < wait <= HEARTBEAT
        moments.add(round(before + wait))
    assert len(moments) <= 3  # rounded up or down, or the step has just begun


async def test_a_heartbeat_is_never_due_at_once() -> None:
    for _ in range(1000):
        assert StreamAge(0).until_heartbeat(0.05) > 0.04


async def test_a_stream_at_its_age_waits_for_no_heartbeat() -> None:
    age = StreamAge(1e-9)
    with pytest.raises(StreamTooOld):
        while True:
            assert age.until_heartbeat(HEARTBEAT) < 1e-8
