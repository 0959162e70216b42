"""The wake_up that watchers wait for."""

import asyncio

import uvloop

from jobledger_server.watch.wake_up import WakeUp

LONG = 30.0

Timers = list[asyncio.TimerHandle]


async def test_set_wakes_the_waiter() -> None:
    wake_up = WakeUp()
    waiting = asyncio.create_task(wake_up.wait(LONG))
    await asyncio.sleep(0)
    wake_up.set()
    wake_up.set()
    assert await waiting is True
    assert await wake_up.wait(0.001) is False


async def test_a_set_without_a_waiter_is_kept_for_the_next_wait() -> None:
    wake_up = WakeUp()
    wake_up.set()
    assert await wake_up.wait(LONG) is True
    assert await wake_up.wait(0.001) is False


async def test_a_cancelled_waiter_leaves_the_event_usable() -> None:
    wake_up = WakeUp()
    waiting = asyncio.create_task(wake_up.wait(LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    wake_up.set()
    assert await wake_up.wait(LONG) is True


async def wait_and_be_woken(wake_up: WakeUp, timeout: float) -> None:
    for _ in range(100):
        waiting = asyncio.create_task(wake_up.wait(timeout))
        await asyncio.sleep(0)
        wake_up.set()
        assert await waiting is True


async def test_one_timer_serves_all_waits(timers: Timers) -> None:
    await wait_and_be_woken(WakeUp(), LONG)
    assert len(timers) == 1


async def test_a_wait_lasts_its_full_timeout_though_it_shares_the_timer_of_an_earlier_one() -> None:
    wake_up = WakeUp()
    loop = asyncio.get_running_loop()
    await wait_and_be_woken(wake_up, 0.05)
    begin = loop.time()
    assert await wake_up.wait(0.05) is False
    assert loop.time() - begin >= 0.05


async def test_a_shorter_wait_does_not_wait_for_the_timer_of_a_longer_one() -> None:
    wake_up = WakeUp()
    waiting = asyncio.create_task(wake_up.wait(LONG))
    await asyncio.sleep(0)
    wake_up.set()
    await waiting
    async with asyncio.timeout(LONG / 2):
        assert await wake_up.wait(0.001) is False


def test_a_wait_can_begin_in_the_last_half_millisecond_of_one_before() -> None:
    """Servers run on uvloop, whose timers know whole milliseconds."""

    async def wait_in_turn() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            wake_up = WakeUp()
            loop.call_later(0.002, wake_up.set)
            assert await wake_up.wait(0.0024) is True  # its timer is due with the one above
            assert await wake_up.wait(0.001) is False

    uvloop.run(wait_in_turn())


async def test_a_closed_event_keeps_no_timer(timers: Timers) -> None:
    wake_up = WakeUp()
    waiting = asyncio.create_task(wake_up.wait(LONG))
    await asyncio.sleep(0)
    (timer,) = timers
    wake_up.close()
    assert timer.cancelled()
    wake_up.set()
    assert await waiting is True
