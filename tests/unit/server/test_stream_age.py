"""The age of streams, and when they are sent heartbeats."""

import asyncio

import pytest

from jobledger_server.admission.endings import StreamTooOld
from jobledger_server.rpc.stream_age import HEARTBEAT_STEP, StreamAge
from jobledger_world.chance import Chance
from jobledger_world.loop import WorldLoop

HEARTBEAT = 15_000.0


def test_streams_share_the_moments_of_their_heartbeats() -> None:
    async def moments_of_1000_streams() -> set[float]:
        moments = set()
        for _ in range(1000):
            await asyncio.sleep(0.01)
            wait = StreamAge(0).until_heartbeat(15.0)
            assert 15 * (1 - HEARTBEAT_STEP) - 1e-6 <= wait <= 15 + 1e-6
            moments.add(round(asyncio.get_running_loop().time() + wait, 6))
        return moments

    # In simulated time they are opened within 10 seconds: with steps of 0.1 that is 101 moments.
    loop: WorldLoop = WorldLoop(Chance(1))
    assert len(loop.run_until_complete(moments_of_1000_streams())) <= 101
    loop.close()


async def test_a_heartbeat_is_never_due_at_once() -> None:
    for _ in range(1000):
        assert StreamAge(0).until_heartbeat(0.05) > 0.04


async def test_a_stream_at_its_age_waits_for_no_heartbeat() -> None:
    age = StreamAge(1e-9)
    with pytest.raises(StreamTooOld):
        while True:
            assert age.until_heartbeat(HEARTBEAT) < 1e-8
