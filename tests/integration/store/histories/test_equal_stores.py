"""Memory, SQLite and PostgreSQL, each under two servers that are asked the same: all agree.

They are given the same commands at the same times, with the same ids, and lose the same answers.
After each step its changes are read from the feed at the other server, and each database is
sound.
"""

import itertools
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import pytest

from tests.integration.store.histories.commands import BEGIN
from tests.integration.store.histories.databases import (
    World,
    in_memory,
    on_postgresql,
    on_sqlite,
)
from tests.integration.store.histories.history import Broken, History
from tests.support.seed import SEED
from tests.support.shared_postgres import Databases

STEPS, STEPS_AT_NIGHT = 75, 500

SHRINKING_SECONDS = 40
"""How long a history that fails is made shorter."""

Run: TypeAlias = Callable[[Sequence[int]], Awaitable[tuple[History, Broken | None]]]
"""Runs these steps of a history on new databases, and returns what they broke."""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(BEGIN)
    world.install(monkeypatch)
    return world


@pytest.fixture
def run(
    seed: str,
    world: World,
    postgres: Databases,
    postgres_template: str,
    sqlite_template: Path,
    tmp_path: Path,
) -> Run:
    numbers = itertools.count()

    async def run(steps: Sequence[int]) -> tuple[History, Broken | None]:
        world.now = BEGIN
        file = shutil.copy(sqlite_template, tmp_path / f"{next(numbers)}.db")
        url = postgres.create_database(postgres_template)
        async with on_sqlite(f"sqlite:///{file}") as sqlite, on_postgresql(url, world) as other:
            history = History(seed, world, [in_memory(world), sqlite, other])
            try:
                await history.run(steps)
            except Broken as broken:
                return history, broken
            return history, None

    return run


async def shrunk(run: Run, history: History, broken: Broken) -> tuple[History, Broken]:
    """Leave out half of the steps, then quarters, down to one at a time, while it fails."""
    end = monotonic() + SHRINKING_SECONDS
    size = len(history.steps) // 2
    while size:
        at = 0
        while at < len(history.steps) and monotonic() < end:
            fewer, failed = await run(history.steps[:at] + history.steps[at + size :])
            if failed is None:
                at += size
            else:
                history, broken = fewer, failed
        size //= 2
    return history, broken


async def check(run: Run, steps: int) -> None:
    history, broken = await run(range(steps))
    if broken is not None:
        history, broken = await shrunk(run, history, broken)
        pytest.fail("\n".join((f"steps {history.steps}:", *history.done, str(broken))))


@pytest.mark.parametrize(
    "seed", ["a", *(pytest.param(each, marks=pytest.mark.slow) for each in "bc")]
)
async def test_databases_that_are_asked_the_same_answer_the_same(run: Run) -> None:
    await check(run, STEPS)


@pytest.mark.night
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [f"{SEED} {number}" for number in range(8)])
async def test_databases_that_are_asked_the_same_for_long_answer_the_same(run: Run) -> None:
    await check(run, STEPS_AT_NIGHT)
