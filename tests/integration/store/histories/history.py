"""A history: the same calls of two servers on each kind of database, and what they must agree in.

Each step has a source of chance of its own, so that the others stay about the same when some are
left out.
"""

import asyncio
import random as chance
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from msgspec import json, to_builtins

from jobledger_server.domain.job import MICROS_PER_SECOND, JobId
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import FeedPage
from tests.integration.store.histories.calls import Call, described, said, some_call
from tests.integration.store.histories.databases import SharedDatabase, World
from tests.integration.store.histories.reads import all_jobs, changes, feed_head, reads
from tests.integration.store.histories.same_choices import CountedIds, SameStore
from tests.support.databases import NoOutages

SERVERS = (0, 1)

SECONDS = {0.0: 2, 0.001: 4, 0.5: 6, 20.0: 3, 1000.0: 0.5}
"""How much time may pass before a step, with how often it does."""

RESTARTED, LOST, READ_ALL = 0.1, 0.1, 0.07
"""How often a step restarts its server first, loses the answers of its commits, and reads all."""


class Broken(AssertionError):
    """The databases differ, or what one of them holds contradicts itself."""


@dataclass
class Side:
    """A database, its servers, and what a watch has received of its feed."""

    database: SharedDatabase
    world: World
    servers: dict[int, tuple[SameStore, Ledger]] = field(default_factory=dict)
    cursor: int = 0
    versions: dict[JobId, int] = field(default_factory=dict)
    _stacks: dict[int, AsyncExitStack] = field(default_factory=dict)

    async def start(self, number: int, ids: CountedIds) -> None:
        """Start a server, in place of an earlier one with this number."""
        await self.stop(number)
        self._stacks[number] = stack = AsyncExitStack()
        store = SameStore(self.database.open_store(), ids)
        stack.push_async_callback(store.close)
        ledger = Ledger(store, lambda _: None, max_waiting=1000, ids=ids)
        # Output is decided by about what time it is: here each server knows it exactly.
        ledger.outages = NoOutages(lambda: self.world.now / MICROS_PER_SECOND)
        self.servers[number] = store, await stack.enter_async_context(ledger)

    async def stop(self, number: int) -> None:
        if number in self._stacks:
            await self._stacks.pop(number).aclose()

    async def read_on(self, number: int) -> FeedPage:
        """Read the feed from where it was read last, at one of the servers."""
        page = await changes(self.servers[number][0], self.cursor, limit=10_000)
        self.cursor = page.through
        for change in page.changes:
            self.versions[change.job.id] = change.job.version
            if change.deleted:
                del self.versions[change.job.id]
        return page

    async def check(self, number: int) -> None:
        """Compare what was received with the jobs, and look if the data is sound."""
        jobs = {job.id: job.version for job in await all_jobs(self.servers[number][0])}
        if missed := jobs.items() ^ self.versions.items():
            raise Broken(f"{self.database.name}: a watch has other versions: {sorted(missed)}")
        if wrong := await self.database.violations():
            raise Broken(f"{self.database.name}: {'; '.join(wrong)}")


class History:
    """Calls that a seed decides, made on each of the databases."""

    def __init__(self, seed: str, world: World, databases: Iterable[SharedDatabase]) -> None:
        self._seed, self._world = seed, world
        self._sides = [Side(database, world) for database in databases]
        self._started = 0
        self.done: list[str] = []
        """What was done so far."""
        self.steps: list[int] = []
        """The steps so far."""

    async def run(self, steps: Sequence[int]) -> None:
        """Make the calls of these steps. Raises Broken."""
        try:
            for number in SERVERS:
                await self._start(number)
            for step in steps:
                self.steps.append(step)
                await self._step(chance.Random(f"{self._seed} {step}"))
        finally:
            for side in self._sides:
                for number in SERVERS:
                    await side.stop(number)

    async def _start(self, number: int) -> None:
        self._started += 1
        for side in self._sides:
            await side.start(number, CountedIds(self._started))

    async def _step(self, random: chance.Random) -> None:
        (seconds,) = random.choices(list(SECONDS), list(SECONDS.values()))
        self._world.now += int(seconds * 10**6)
        for side in self._sides:
            await side.database.set_clock()
        number = random.choice(SERVERS)
        if random.random() < RESTARTED:
            self.done.append(f"server {number} restarts")
            await self._start(number)
        call = some_call(random, await all_jobs(self._sides[0].servers[number][0]))
        self._world.commits_are_lost = random.random() < LOST
        lost = ", and the answers of its commits are lost" if self._world.commits_are_lost else ""
        await self._call(number, call, f"{seconds:g} s later{lost}: {described(call)}")
        if self._world.commits_are_lost:
            self._world.commits_are_lost = False
            number = random.choice(SERVERS)
            await self._call(number, call, "the same again")
        other = 1 - number
        await self._agree("the feed", lambda side: side.read_on(other))
        for side in self._sides:
            await side.check(other)
        if random.random() < READ_ALL:
            await self._read_all(random, number)

    async def _call(self, number: int, call: Call, what: str) -> None:
        self.done.append(f"server {number}, {what}")
        await self._agree("the answer", lambda side: call(*side.servers[number]))

    async def _read_all(self, random: chance.Random, number: int) -> None:
        first = self._sides[0].servers[number][0]
        jobs, head = await all_jobs(first), await feed_head(first)
        for name, read in reads(random, jobs, head.seq).items():
            await self._agree(name, lambda side, read=read: read(side.servers[number][0]))

    async def _agree(self, what: str, ask: Callable[[Side], Awaitable[object]]) -> None:
        """Ask each side. Raises Broken unless all answer the same."""
        first, *others = await asyncio.gather(*(_answer(ask(side)) for side in self._sides))
        for side, answer in zip(self._sides[1:], others, strict=True):
            if answer != first:
                where = _difference(first, answer)
                raise Broken(
                    f"{what} of {self._sides[0].database.name} and {side.database.name}"
                    f" differ: {where}"
                )


async def _answer(asked: Awaitable[object]) -> object:
    """Return it as JSON, in which a list and a tuple are the same."""
    answer: object
    try:
        answer = await asked
    except Exception as error:  # noqa: BLE001
        answer = said(error)
    return json.decode(json.encode(to_builtins(answer, str_keys=True, order="deterministic")))


def _difference(one: Any, other: Any) -> str:
    """Return where two JSON values differ first."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        key = next(key for key in one if one[key] != other[key])
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        key = next(key for key in range(len(one)) if one[key] != other[key])
    else:
        return f" {one} / {other}"
    return f"[{key!r}]{_difference(one[key], other[key])}"
