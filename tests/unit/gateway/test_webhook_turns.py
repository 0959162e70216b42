"""Owners take turns, and each has a part of all attempts at most."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from jobledger_gateway.webhooks.turns import Turns


class Attempts:
    """Attempts that last until they are ended, by their names."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def add(self, *names: str) -> None:
        """Add attempts: the first letter of each is its owner."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._run(name))
        await settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self.tasks[name]
        await settle()

    async def cancel(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
        await settle()

    async def _run(self, name: str) -> None:
        async with self.turns.turn(name[0]):
            self.begun.append(name)
            await self._ends[name].wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def attempts() -> AsyncIterator[Attempts]:
    attempts = Attempts(Turns(total=3, each=2))
    yield attempts
    await attempts.cancel(*attempts.tasks)
    attempts.begun.clear()
    await attempts.add("x1", "x2", "y1")  # all turns were given back
    assert attempts.begun == ["x1", "x2", "y1"]
    await attempts.cancel(*attempts.tasks)


async def test_an_owner_has_its_part_and_the_others_the_rest(attempts: Attempts) -> None:
    await attempts.add("a1", "a2", "a3", "b1", "b2")
    assert attempts.begun == ["a1", "a2", "b1"]


async def test_owners_take_turns(attempts: Attempts) -> None:
    await attempts.add("a1", "a2", "b1", "a3", "a4", "b2", "c1", "c2")
    for name in ("a1", "a2", "b1", "a3"):
        await attempts.end(name)
    assert attempts.begun == ["a1", "a2", "b1", "a3", "b2", "c1", "a4"]


async def test_what_is_cancelled_takes_no_turn_and_gives_its_own_back(attempts: Attempts) -> None:
    await attempts.add("a1", "a2", "a3", "a4", "b1")
    await attempts.cancel("a3", "a1")
    assert attempts.begun == ["a1", "a2", "b1", "a4"]


async def test_one_that_is_cancelled_as_its_turn_comes_gives_it_back(attempts: Attempts) -> None:
    await attempts.add("a1", "a2", "a3", "a4")
    attempts.tasks["a1"].cancel()
    attempts.tasks["a3"].cancel()
    await settle()
    assert attempts.begun == ["a1", "a2", "a4"]
