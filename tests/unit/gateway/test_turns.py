"""Turns: of all callers alike, one at a time for each."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from jobledger_gateway.turns import Caller, Turns

EVE, ADA, BOB = Caller("192.0.2.1", "eve"), Caller("192.0.2.2", "ada"), Caller("192.0.2.2", "bob")


class Work:
    """Work that lasts until it is released, and notes its begin."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._released = threading.Semaphore(0)

    def of(self, name: str) -> Callable[[], str]:
        def work() -> str:
            self.begun.append(name)
            assert self._released.acquire(timeout=10)
            return name

        return work

    def release(self, count: int = 1) -> None:
        self._released.release(count)


@asynccontextmanager
async def all_released(work: Work) -> AsyncIterator[None]:
    try:
        yield
    finally:
        work.release(100)


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not met():
            await asyncio.sleep(0)


async def test_a_caller_with_much_work_leaves_the_other_thread_to_others() -> None:
    turns, work = Turns(2), Work()
    async with all_released(work):
        of_eve = [asyncio.create_task(turns.run(EVE, work.of("eve"))) for _ in range(5)]
        await until(lambda: work.begun == ["eve"])
        of_ada = asyncio.create_task(turns.run(ADA, work.of("ada")))
        await until(lambda: work.begun == ["eve", "ada"])
    assert await asyncio.gather(*of_eve, of_ada) == ["eve"] * 5 + ["ada"]


async def test_addresses_take_turns_and_the_callers_of_an_address_too() -> None:
    turns, work = Turns(1), Work()
    names = {EVE: "eve", ADA: "ada", BOB: "bob"}
    async with all_released(work):
        tasks = [
            asyncio.create_task(turns.run(caller, work.of(names[caller])))
            for caller in (EVE, EVE, EVE, ADA, ADA, BOB)
        ]
        for count in range(1, 7):
            await until(lambda count=count: len(work.begun) == count)
            work.release()
    await asyncio.gather(*tasks)
    assert work.begun == ["eve", "eve", "ada", "eve", "bob", "ada"]


async def test_work_that_nobody_waits_for_keeps_its_turn_until_it_has_ended() -> None:
    turns, work = Turns(1), Work()
    async with all_released(work):
        running = asyncio.create_task(turns.run(EVE, work.of("running")))
        await until(lambda: work.begun == ["running"])
        waiting = asyncio.create_task(turns.run(EVE, work.of("waiting")))
        await asyncio.sleep(0)
        running.cancel()
        waiting.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        last = asyncio.create_task(turns.run(ADA, work.of("last")))
        for _ in range(10):
            await asyncio.sleep(0)
        assert work.begun == ["running"]
        work.release()
        await until(lambda: work.begun == ["running", "last"])
    assert await last == "last"
