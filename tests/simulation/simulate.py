"""Runs a plan: servers under load in a world where things break; and judges what came of it."""

import asyncio
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import grpc

from jobledger_server.rpc.workers import worker_requests
from jobledger_server.settings import Settings
from jobledger_server.tuning import Tuning
from jobledger_world.memory.disk import MemoryDisk
from jobledger_world.nodes import Node
from jobledger_world.problems import Broken
from jobledger_world.world import World
from tests.checker.front import Mutation, standing_before
from tests.checker.history import History
from tests.checker.inspector import inspecting
from tests.checker.judge.permitted import RULES
from tests.checker.judge.validate import judge
from tests.checker.load import Load, Size
from tests.simulation.allowed import is_allowed
from tests.simulation.faults import Nemesis
from tests.simulation.memory_inspector import inspecting_memory
from tests.simulation.plan import Plan
from tests.support.access_file import write_access_file

SETTINGS: Mapping[str, Any] = {"heartbeat": 1.0}
"""Of the simulated servers; the load's clients expect a heartbeat a second."""

SIZE = Size(
    writers=3,
    workers=2,
    stream_workers=3,
    job_watchers=4,
    output_readers=3,
    brief=1,
    patience=300.0,
)

MIN_LEASE_SECONDS = 1
"""Simulated servers grant leases that are shorter than real ones do: many are lost in a run."""

NewFront = Callable[[], Mutation]

LEAVE_SECONDS = 150.0
"""After so long without a client, a server holds nothing any more of any."""

MAX_STEPS = 2_000_000
"""Twenty times what a long run takes: what takes more repeats something without a pause."""

SHOWN = 5
"""Violations of one promise that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a run.

    Attributes:
        plan: What was run.
        broken: What was wrong, by the promise, or by who found it.
        hash: Of all that has happened.
        seconds: Simulated ones.
        cpu: Seconds of CPU.
        steps: Of the loop.
        faults: How often each kind was injected.
        counts: What has happened at the disk.
        updates: What workers of the library sent, by its kinds.
        beyond: How often a caller asked for jobs that it may not create, by the key of its rule.
        answered: The calls that were answered, by the RPC.
        webhooks: How often they were claimed, saved and changed, by the calls that were answered.
    """

    plan: Plan
    broken: Mapping[str, Sequence[str]] = field(default_factory=dict)
    hash: str = ""
    seconds: float = 0.0
    cpu: float = 0.0
    steps: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    updates: Mapping[str, int] = field(default_factory=dict)
    beyond: Mapping[str, int] = field(default_factory=dict)
    answered: Mapping[str, int] = field(default_factory=dict)
    webhooks: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Run:
    plan: Plan
    history: History = field(default_factory=History)
    leaks: list[str] = field(default_factory=list)
    front: NewFront | None = None

    async def __call__(self, world: World) -> None:
        plan = self.plan
        world.problems.database_breaks = any(f.kind.startswith("database") for f in plan.faults)
        for part, values in ((world.network, plan.network), (world.disk, plan.disk)):
            for name, value in values.items():
                setattr(part, name, value)
        async with self._targets(world) as targets:
            load = Load(
                targets,
                plan.chance.seed,
                replace(SIZE, **plan.load),
                connect=partial(_connect, world),
                access=plan.access,
            )
            self.history = load.history
            self.history.retain_deletions = world.settings.retain_deletions
            self.history.job_output = world.settings.job_output
            async with _inspected(world, load.history), load.running():
                await Nemesis(world, load.history).run(plan.faults, plan.seconds)
                world.repair()
        self.leaks = await _leaks(world)

    @asynccontextmanager
    async def _targets(self, world: World) -> AsyncIterator[Sequence[str]]:
        """Yield the addresses of the servers, or of what stands before each."""
        targets = [server.target for server in world.servers.values()]
        if self.front is None:
            yield targets
            return
        front, connect = self.front(), partial(_connect, world, options=())
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(
                    standing_before(
                        target, front, connect=connect, new_server=world.network.new_server
                    )
                )
                for target in targets
            ]


def simulate(
    plan: Plan, trace: list[str] | None = None, *, front: NewFront | None = None
) -> Result:
    """Run a plan.

    Args:
        plan: Decides it all.
        trace: Gets every step.
        front: Makes what stands before the servers, and gives wrong answers.
    """
    began = time.process_time()
    if front is not None:  # it passes no tokens on
        plan = replace(plan, access=False)
    settings = {**SETTINGS, **plan.settings}
    folder = TemporaryDirectory()
    if plan.access:
        settings["access"] = Path(folder.name) / "access.toml"
        write_access_file(settings["access"], RULES)
    world = World(
        plan.chance.seed,
        servers=plan.servers,
        store=plan.store,
        settings=Settings(**settings),
        tuning=Tuning(**plan.tuning),
        shuffle=plan.shuffle,
        trace=trace,
    )
    world.loop.max_steps = MAX_STEPS
    world.loop.busy = plan.busy
    run = _Run(plan, front=front)
    broken: dict[str, Sequence[str]] = {}
    try:
        with folder, patch.object(worker_requests, "MIN_LEASE_SECONDS", MIN_LEASE_SECONDS):
            world.run(run)
    except Broken as error:
        broken["world"] = [str(error)]
    except Exception as error:  # noqa: BLE001
        broken["run"] = ["".join(traceback.format_exception(error))]
    else:
        for promise, found in judge(run.history).items():
            wrong = [violation.what for violation in found if not is_allowed(violation, plan)]
            if wrong:
                broken[promise] = wrong[:SHOWN]
    if run.leaks:
        broken["leaks"] = run.leaks
    return Result(
        plan=plan,
        broken=broken,
        hash=world.loop.hash,
        seconds=world.loop.time(),
        cpu=time.process_time() - began,
        steps=world.loop.steps,
        faults=Counter(fault.kind for fault in run.history.faults),
        counts=dict(world.disk.counts),
        updates=dict(run.history.updates),
        beyond=Counter(
            operation.beyond.partition(":")[0]
            for operation in run.history.operations
            if operation.beyond
        ),
        answered=dict(run.history.answered),
        webhooks=Counter(
            [
                *("ClaimWebhooks" for _ in run.history.webhook_claims),
                *("SaveWebhook" for _ in run.history.webhook_saves),
                *(change.rpc for change in run.history.webhook_changes),
            ]
        ),
    )


def _inspected(world: World, history: History) -> AbstractAsyncContextManager[object]:
    """Look into the database again and again during the block."""
    if isinstance(world.disk, MemoryDisk):
        return inspecting_memory(world.disk.tables, history)
    return inspecting(world.disk.database(Node(world.loop, "inspector")), history)


def _connect(world: World, target: str, options: Any) -> grpc.aio.Channel:
    return world.network.channel(target, options=options)


async def _leaks(world: World) -> list[str]:
    """Return what is still held although everybody has left."""
    deadline = world.loop.time() + LEAVE_SECONDS
    while (held := _held(world)) and world.loop.time() < deadline:
        await asyncio.sleep(0.25)
    return held


def _held(world: World) -> list[str]:
    return [
        f"{server.name} holds {count} {what}"
        for server in world.servers.values()
        if server.app is not None
        for what, count in server.app.held().items()
    ] + [f"the database has {held}" for held in world.disk.held()]
