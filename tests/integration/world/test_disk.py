"""The disk of a world: several servers' stores on one SQLite file, in simulated time."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from jobledger.testing.world.chance import Chance
from jobledger.testing.world.disk import Disk
from jobledger.testing.world.loop import Node, WorldLoop
from jobledger.testing.world.machine import Machine, answering
from jobledger_server.domain.commands import Create
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import Store
from tests.support.databases import NoOutages
from tests.support.ledger_calls import apply


class Run:
    """A run with a disk, from a seed."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.chance = Chance(seed)
        self.loop = WorldLoop(self.chance)
        self.machine = Machine(self.loop)
        self.disk = Disk(self.loop, self.chance, self.machine, folder)

    def node(self, name: str) -> Node:
        return Node(self.loop, name)

    def run(self, main: Coroutine[Any, Any, object]) -> Any:
        with answering(self.machine, self.chance, lambda seconds: None):
            try:
                return self.loop.run_until_complete(main)
            finally:
                self.disk.close()
                self.loop.close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


async def with_ledger(
    run: Run, node: Node, use: Callable[[Ledger, Store], Coroutine[Any, Any, object]]
) -> Any:
    async with (
        run.disk.open(node) as opened,
        Ledger(opened.store, lambda _: None, max_waiting=1000) as ledger,
    ):
        ledger.outages = NoOutages()
        return await use(ledger, opened.store)


async def creating(ledger: Ledger, store: Store) -> list[str]:
    return [(await apply(ledger, Create(user_id="ada", job_type="t"))).job.id for _ in range(5)]


async def many(run: Run) -> tuple[int, str]:
    nodes = [run.node(f"server-{number}") for number in range(3)]
    made = await asyncio.gather(*(node.start(with_ledger(run, node, creating)) for node in nodes))
    reader = run.node("reader")

    async def count(_: Ledger, store: Store) -> int:
        return len(await store.read_jobs([job for jobs in made for job in jobs], full=False))

    return await reader.start(with_ledger(run, reader, count)), run.loop.hash


def test_several_servers_write_to_one_file(run: Run) -> None:
    count, _ = run.run(many(run))
    assert count == 15
    assert run.disk.counts["commits"] == 15
    assert not run.disk.held()


def test_a_seed_repeats_a_run(tmp_path: Path) -> None:
    hashes = set()
    for _ in range(2):
        run = Run(tmp_path)
        hashes.add(run.run(many(run)))
    assert len(hashes) == 1
