"""The bell that watchers wait for."""

import asyncio

from jobledger_server.watch.bell import Bell

LONG = 30.0


async def test_who_waits_is_woken() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait(LONG))
    await asyncio.sleep(0)
    bell.ring()
    bell.ring()
    assert await waiting is True
    assert await bell.wait(0.001) is False


async def test_a_ring_that_nobody_waited_for_is_not_lost() -> None:
    bell = Bell()
    bell.ring()
    assert await bell.wait(LONG) is True
    assert await bell.wait(0.001) is False


async def test_a_waiter_that_is_cancelled_leaves_it_as_it_was() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait(LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    bell.ring()
    assert await bell.wait(LONG) is True
