"""The store in memory and the one on SQLite, asked the same: each answer is the same.

Two ledgers are given the same commands at the same simulated times, and with the same ids.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from msgspec import json, to_builtins
from msgspec.structs import replace

from jobledger.testing.world.blocking import sleep
from jobledger.testing.world.chance import Chance
from jobledger.testing.world.disk import Disk
from jobledger.testing.world.loop import Node, WorldLoop
from jobledger.testing.world.machine import Machine, answering
from jobledger.testing.world.memory import MemoryDisk
from jobledger_server.domain.job import Job, Micros
from jobledger_server.ledger.ids import IdSource
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import (
    START_OF_ACTIVE,
    Change,
    FeedHead,
    FeedPage,
    JobQuery,
    News,
    Store,
)
from tests.integration.world.random_calls import (
    OWNERS,
    TENANTS,
    TYPES,
    Call,
    some_call,
    some_query,
)
from tests.support.databases import NoOutages
from tests.support.seed import SEED

CALLS = 200

READ_EACH = 10
"""After so many calls all is read and compared."""


class Both:
    """The two stores, each with a ledger."""

    def __init__(self, seed: str, folder: Path) -> None:
        self.chance = Chance(seed)
        self.random = self.chance.of("calls")
        self.loop = WorldLoop(self.chance)
        self.machine = Machine(self.loop)
        self.disks = (
            MemoryDisk(self.loop, self.chance, self.machine),
            Disk(self.loop, self.chance, folder),
        )
        self.sides: list[tuple[Store, Ledger]] = []

    def run(self) -> None:
        with answering(self.machine, self.chance, sleep):
            try:
                self.loop.run_until_complete(self._run())
            finally:
                self.disks[1].close()
                self.loop.close()

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            for disk in self.disks:
                disk.latency = 0.0, 0.0  # or their clocks would differ
                opened = await stack.enter_async_context(disk.open(Node(self.loop, "server")))
                ids = IdSource(self.chance.of("ids").getrandbits)
                ledger = Ledger(opened.store, lambda _: None, max_waiting=1000, ids=ids)
                ledger.outages = NoOutages()
                self.sides.append((opened.store, await stack.enter_async_context(ledger)))
            for number in range(CALLS):
                jobs = await _all_jobs(self.sides[0][0])
                call = some_call(self.random, jobs)
                await self.ask(repr(call), call)
                await asyncio.sleep(self.random.choice((0.0, 0.001, 0.5, 20.0, 1000.0)))
                if number % READ_EACH == 0:
                    await self.read(jobs)

    async def ask(self, what: str, call: Call) -> Any:
        """Ask both, and return what both answer."""
        ours, theirs = await asyncio.gather(*(_outcome(call, *side) for side in self.sides))
        assert _plain(ours) == _plain(theirs), what
        return ours

    async def read(self, jobs: list[Job]) -> None:
        """Read everything of both."""
        random, ids = self.random, [job.id for job in jobs]
        head = (await self.ask("head", _head)).seq
        after, limit = random.randint(0, head), random.choice((1, 3, 100))
        position = replace(START_OF_ACTIVE, user_id=random.choice(("", *OWNERS)))
        active = {"until": after, "limit": limit}
        query, before = some_query(random, jobs), random.choice([None, *ids])
        counts = {"job_types": random.choice(((), TYPES))}
        some = random.sample(ids, min(3, len(ids)))
        age = Micros(random.choice((0, 10**8, 10**10)))
        for name, read in {
            "changes": lambda store: _changes(store, after, limit=limit),
            "changes until": lambda store: _changes(store, 0, limit=limit, until=after),
            **{
                f"changes of {user_id}": lambda store, user_id=user_id: _changes(
                    store, after, limit=limit, user_id=user_id
                )
                for user_id in OWNERS
            },
            "active": lambda store: store.active_jobs(position, **active),
            "active of one": lambda store: store.active_jobs(position, **active, user_id="ada"),
            "active of some": lambda store: store.active_jobs(position, **active, ids=some),
            "jobs": lambda store: store.read_jobs(ids, full=True),
            "list": lambda store: store.list_jobs(query, before=before, limit=limit),
            "pauses": lambda store: store.pauses(),
            "news": _news,
            "rechecks": lambda store: store.find_rechecks(after="", limit=limit),
            "count": lambda store: store.count_active("ada", limit=limit),
            "purgeable": lambda store: store.find_purgeable(age, after=after, limit=limit),
            "limits": lambda store: store.queue_settings.limits(after="", limit=limit),
            "stats": lambda store: store.queue_reports.stats(limit=limit, **counts),
            **{
                f"stats of {tenant}": lambda store, tenant=tenant: store.queue_reports.stats(
                    limit=limit, fairness_key=tenant
                )
                for tenant in TENANTS
            },
            "levels": lambda store: store.sweeps.levels(after=("", 0), limit=limit),
            "assets": lambda store: store.read_assets(ids),
            **{
                f"{kind} of {each.id}": lambda store, kind=kind, each=each: _of_job(
                    store, kind, each
                )
                for each in random.sample(jobs, min(5, len(jobs)))
                for kind in ("attempts", "assets", "facts")
            },
        }.items():
            await self.ask(name, lambda store, _, read=read: read(store))


def _plain(value: object) -> object:
    """Return it as JSON, in which a list and a tuple are the same."""
    return json.decode(json.encode(to_builtins(value, str_keys=True, order="deterministic")))


async def _outcome(
    call: Callable[[Store, Ledger], Awaitable[object]], store: Store, ledger: Ledger
) -> object:
    try:
        return await call(store, ledger)
    except Exception as error:  # noqa: BLE001
        return type(error).__name__, str(error)


async def _all_jobs(store: Store) -> list[Job]:
    """Return the jobs that exist."""
    page = await store.list_jobs(JobQuery(user_id=None), before=None, limit=10_000)
    return list(page.jobs)


async def _head(store: Store, _: Ledger) -> FeedHead:
    return replace(await store.feed_head(), epoch="")


async def _news(store: Store) -> News:
    news = await store.news(TYPES)
    return replace(news, head=replace(news.head, epoch=""))


async def _changes(store: Store, after: int, **options: Any) -> FeedPage:
    """Return changes, without what differs: epochs, and the request ids of deleted jobs."""
    page = await store.changes_after(after, **options)
    changes = [_without_request(change) for change in page.changes]
    return FeedPage(replace(page.head, epoch=""), changes, page.through)


def _without_request(change: Change) -> Change:
    return replace(change, job=replace(change.job, request_id=""))


async def _of_job(store: Store, kind: str, job: Job) -> object:
    match kind:
        case "attempts":
            return await store.list_attempts(job.id, after=0, limit=9)
        case "assets":
            return await store.list_assets(job.id, after=None, limit=9)
        case _:
            return await store.queue_reports.wait_facts(job.id, user_id=None)


def test_two_stores_that_are_asked_the_same_answer_the_same(tmp_path: Path) -> None:
    Both(str(SEED), tmp_path).run()
