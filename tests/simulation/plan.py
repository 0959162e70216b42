"""A plan: all that decides a run, besides the code. The same plan gives the same run."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from jobledger_world.chance import Chance
from tests.simulation import knobs

Store = Literal["memory", "sqlite"]

Kind = Literal[
    "kill",
    "restart",  # by SIGTERM
    "freeze",
    "reset",
    "black hole",
    "half-open to server",
    "half-open to client",
    "refused",
    "unanswered",
    "slow network",
    "duplicates",
    "lost answers",
    "database slow",
    "database stall",
    "database fail",
    "database reject",
    "database lost",
    "database cut",
    "clock",
]
OFTEN: tuple[Kind, ...] = ("restart",) * 3
"""Each upgrade restarts servers: that happens more often than something breaks."""

KINDS: tuple[Kind, ...] = (*get_args(Kind), *OFTEN)

NEMESES = 2
"""Sequences of faults that run at the same time."""

ACCESS = 0.3
"""How many of the plans have an access file: where callers may choose less, less is created."""

CALM = 0.3
"""How many of the plans have no faults: where something is broken, late signals are excused."""

LONG = 0.03
"""How many of the faults last much longer than the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that breaks, `at` seconds after the load began, for `lasts` seconds.

    The seed decides the rest of it, such as which server it is. So each fault stays what it is
    where others are left out.
    """

    at: float
    kind: Kind
    lasts: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """See the module. What a mapping lacks has the product's, or the checker's, own value.

    Attributes:
        seed: Decides what the plan does not: what clients do, and when.
        salt: Another one of these for the same plan.
        seconds: How long there is load.
        faults: What breaks when.
        tuning: Fields of the server's `Tuning`.
        settings: Fields of its `Settings`.
        load: Fields of the load's `Size`.
        network: Attributes of the network.
        disk: Attributes of the disk.
        shuffle: How often the order of tasks that are ready is changed, from 0 to 1.
        busy: Seconds; see `WorldLoop.busy`.
        access: Whether the servers have an access file.
    """

    seed: int
    salt: int = 0
    store: Store = "memory"
    servers: int = 3
    seconds: float = 15.0
    faults: tuple[Fault, ...] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    disk: Mapping[str, Any] = field(default_factory=dict)
    shuffle: float = 0.0
    busy: float = 0.0
    access: bool = False

    @property
    def chance(self) -> Chance:
        return Chance(f"{self.seed}/{self.salt}" if self.salt else self.seed)

    def shortened(self, seconds: float) -> "Plan":
        """Return the plan with less load, without the faults that come later."""
        faults = tuple(fault for fault in self.faults if fault.at < seconds)
        return replace(self, seconds=seconds, faults=faults)


def plan_of(seed: int, store: Store = "memory", *, seconds: float = 15.0) -> Plan:
    """Return the plan that a seed makes."""
    chance = Chance(seed)
    rng = chance.of("plan")
    tuning = knobs.turned(knobs.TUNING, chance.of("tuning"))
    settings = knobs.turned(knobs.SETTINGS, chance.of("settings"))
    if "retain_deletions" in settings:  # else none is forgotten in so short a run
        tuning.setdefault("purge_seconds", 0.3)
    load = knobs.chosen(knobs.LOAD, chance.of("load"))
    disk = knobs.chosen(knobs.DISK, chance.of("disk"))
    if max(load["pieces"]) > tuning.get("waiting_command_bytes", math.inf):
        # A worker that does not wait between its pieces may never get one in that is larger, for
        # those after it, which are refused for the gap, are there first.
        del tuning["waiting_command_bytes"]
    if max(load["pieces"]) > knobs.LARGE_PIECE:
        # All workers together write many times what these let in, and would not end in time.
        settings.pop("output_rate", None)
        settings.pop("owner_output_rate", None)
    if disk["latency"] == knobs.SLOW_DISK:
        # It has no time for each command, due job or lost lease alone, nor for each change where
        # watchers leave soon.
        tuning.pop("command_batch", None)
        tuning.pop("command_batch_bytes", None)
        tuning.pop("waiting_command_bytes", None)
        tuning.pop("promote_batch", None)
        tuning.pop("reap_batch", None)
        # A worker whose streams end sooner than they answer never learns that it has lost a job.
        settings.pop("max_watch_age", None)
        # Nor for more than this: batches of seconds, one after the other, would keep a job locked.
        load["rate"] = knobs.LEAST_RATE
        load["written"] = knobs.LEAST_WRITTEN
        if load["stay"] == knobs.SHORT_STAY:
            tuning.pop("feed_page", None)
    return Plan(
        seed=seed,
        store=store,
        servers=rng.choice((1, 2, 3, 3)),
        seconds=seconds,
        faults=tuple(sorted(_faults(chance, seconds), key=lambda fault: fault.at)),
        tuning=tuning,
        settings=settings,
        load=load,
        network=knobs.chosen(knobs.NETWORK, chance.of("network")),
        disk=disk,
        shuffle=rng.choice((0.0, 0.0, 0.2, 0.9)),
        busy=chance.of("busy").choice((0.0, 0.0, 0.001, 0.01)),
        access=chance.of("access").random() < ACCESS,
    )


def _faults(chance: Chance, seconds: float) -> list[Fault]:
    # A run that has them all hides what only a few of them, again and again, would bring about.
    swarm = chance.of("swarm")
    kinds = KINDS if swarm.random() < 0.5 else swarm.sample(KINDS, swarm.randint(1, 5))
    if chance.of("calm").random() < CALM:
        return []
    faults = []
    for nemesis in range(NEMESES):
        rng = chance.of(f"nemesis {nemesis}")
        at = rng.uniform(0.1, 1.5)
        while at < seconds:
            faults.append(_fault(rng, at, kinds))
            at = faults[-1].at + faults[-1].lasts + rng.uniform(0.1, 1.5)
    return faults


def _fault(rng: random.Random, at: float, kinds: tuple[Kind, ...] | list[Kind]) -> Fault:
    lasts = rng.choice((0.05, 0.3, 1.0, 3.0)) * rng.uniform(0.5, 1.5)
    if rng.random() < LONG:
        lasts *= 8
    return Fault(
        at=round(at, 3), kind=rng.choice(kinds), lasts=round(lasts, 3), seed=rng.getrandbits(32)
    )


def save(plan: Plan, file: Path) -> None:
    """Write a plan to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n")


def load(file: Path) -> Plan:
    """Read a plan from a file."""
    return msgspec.json.decode(file.read_bytes(), type=Plan)
