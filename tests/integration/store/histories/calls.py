"""Calls of a store and its ledger that chance decides: what servers do, asked or by themselves."""

import random as chance
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from msgspec import NODEFAULT, Struct
from msgspec.structs import fields, replace

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Claim, Command, Purge
from jobledger_server.domain.errors import LimitExceeded, RequestIdReused
from jobledger_server.domain.job import Job, Micros, Phase
from jobledger_server.domain.state_machine import Decision
from jobledger_server.domain.type_defaults import NO_DEFAULTS, TypeDefaults
from jobledger_server.ledger.allocation import Allocation
from jobledger_server.ledger.due_jobs import make_due_ready
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.unblocking import unblock
from jobledger_server.maintenance.sweeper import Sweeper
from jobledger_server.store import Store, StoreUnavailable
from tests.integration.store.histories.commands import LEASE, SECOND, TYPES, some_command
from tests.integration.store.histories.webhook_calls import WebhookCall, some_webhook_calls

NAMES = ("k", "k:1", "other")

DEFAULTS = (
    TypeDefaults(priority=9, run_timeout=Micros(300 * SECOND), retention=Micros(50 * SECOND)),
    TypeDefaults(queue_timeout=Micros(200 * SECOND), stall_timeout=Micros(30 * SECOND)),
    TypeDefaults(
        max_attempts=1,
        initial_backoff=Micros(SECOND),
        max_backoff=Micros(2 * SECOND),
        backoff_multiplier=1.5,
    ),
)

ALL = 1000
"""More than are due, or overdue: which are first is not said where their times are the same."""

Call: TypeAlias = "partial[Awaitable[object]]"
"""Called with a store and its ledger."""


def some_call(random: chance.Random, jobs: Sequence[Job]) -> Call:
    """Return a call, about these jobs if it is about any."""
    kinds: dict[Callable[[chance.Random, Sequence[Job]], Call], int] = {
        _commands: 20,
        _claims: 6,
        _expires: 2,
        _makes_ready: 3,
        _unblocks: 3,
        _sets: 4,
        _sweeps: 1,
        _retires: 1,
        _webhooks: 6,
    }
    return random.choices(list(kinds), list(kinds.values()))[0](random, jobs)


def said(error: Exception) -> str:
    """Return what an error says. Each database says in other words that it is unavailable."""
    words = "" if isinstance(error, StoreUnavailable) else f": {error}"
    return f"{type(error).__name__}{words}"


def described(call: Call) -> str:
    """Return what a call is, in a few words."""
    return f"{call.func.__name__} {', '.join(map(_described, call.args))}"


def _described(value: Any) -> str:
    if isinstance(value, partial):
        return described(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_described, value))}]"
    if not isinstance(value, Struct):
        return repr(value)
    said = {each.name: getattr(value, each.name) for each in fields(value)}
    plain = {each.name: each.default for each in fields(value) if each.default is not NODEFAULT}
    own = (f"{name}={_described(each)}" for name, each in said.items() if each != plain.get(name))
    return f"{type(value).__name__}({', '.join(own)})"


def _commands(random: chance.Random, jobs: Sequence[Job]) -> Call:
    return partial(submit, [some_command(random, jobs) for _ in range(random.randint(1, 8))])


async def submit(
    commands: Sequence[Command | Allocation], _: Store, ledger: Ledger
) -> list[object]:
    """Submit commands as one batch."""
    outcomes = await ledger.submit(commands, SERVICE)
    return [
        said(each) if isinstance(each, Exception) else list(map(_decided, each))
        for each in outcomes
    ]


def _decided(decision: Decision) -> Decision:
    """Return a decision without where output ends that was appended before.

    For a repetition it is where a server has seen it end.
    """
    return decision if decision.output is not None else replace(decision, next_offset=0)


def _claims(random: chance.Random, _: Sequence[Job]) -> Call:
    claim = Claim(
        worker_id="w",
        job_types={random.choice(TYPES)},  # of several types the order is random
        max_jobs=random.randint(1, 5),
        lease_duration=LEASE,
    )
    return partial(claim_jobs, claim)


async def claim_jobs(claim: Claim, store: Store, ledger: Ledger) -> object:
    # SQL may give a claim fewer jobs while others are overdue.
    expired = await expire(store, ledger)
    found = await store.find_claimable(dict.fromkeys(claim.job_types, 9), limit=9)
    claimed = await submit([Allocation(claim, lambda: True, None)], store, ledger)
    return expired, found, claimed


def _expires(_: chance.Random, __: Sequence[Job]) -> Call:
    return partial(expire)


async def expire(_: Store, ledger: Ledger) -> object:
    """Apply deadlines as the reaper does."""
    return await ledger.expire(limit=ALL)


def _makes_ready(_: chance.Random, __: Sequence[Job]) -> Call:
    return partial(promote)


async def promote(store: Store, ledger: Ledger) -> object:
    return await make_due_ready(store, ledger.known_limits, most=ALL)


def _unblocks(_: chance.Random, __: Sequence[Job]) -> Call:
    return partial(unblock_all)


async def unblock_all(store: Store, ledger: Ledger) -> object:
    keys = await store.find_rechecks(after="", limit=9)
    return keys, [await unblock(store, ledger.known_limits, key) for key in keys]


def _sets(random: chance.Random, jobs: Sequence[Job]) -> Call:
    match random.choice(("limit", "pause key", "pause type", "defaults", "resume", "resume")):
        case "limit":
            limit = random.choice((None, None, 0, 1, 2))
            return partial(set_limit, random.choice(NAMES), limit)
        case "pause key":
            return partial(pause_key, random.choice(NAMES))
        case "pause type":
            ready = [job.job_type for job in jobs if job.phase is Phase.READY]
            return partial(pause_type, random.choice(ready or TYPES))
        case "defaults":
            defaults = random.choice((NO_DEFAULTS, *DEFAULTS))
            return partial(set_defaults, random.choice(TYPES), defaults)
        case _:
            return partial(resume_all)


# The other server does not know yet.


async def set_limit(name: str, limit: int | None, store: Store, ledger: Ledger) -> object:
    done = await store.queue_settings.set_limit(name, limit)
    await ledger.known_limits.refresh()
    return done


async def pause_key(name: str, store: Store, ledger: Ledger) -> object:
    done = await store.queue_settings.pause_key(name, actor="x", reason="y")
    await ledger.known_limits.refresh()
    return done


async def pause_type(name: str, store: Store, ledger: Ledger) -> object:
    done = await store.queue_settings.pause_type(name, actor="x", reason="y")
    await ledger.known_limits.refresh()
    return done


async def set_defaults(name: str, defaults: TypeDefaults, store: Store, ledger: Ledger) -> object:
    await store.queue_settings.set_type_defaults(name, defaults)
    await ledger.known_limits.refresh()
    return None


async def resume_all(store: Store, ledger: Ledger) -> object:
    done = [
        *[await store.queue_settings.resume_key(name) for name in NAMES],
        *[await store.queue_settings.resume_type(name) for name in TYPES],
    ]
    await ledger.known_limits.refresh()
    return done


def _sweeps(_: chance.Random, __: Sequence[Job]) -> Call:
    return partial(sweep)


async def sweep(store: Store, _: Ledger) -> object:
    return [deleted for each in Sweeper(store).passes async for deleted in each()]


def _retires(random: chance.Random, _: Sequence[Job]) -> Call:
    return partial(retire, Micros(random.choice((100, 10_000)) * SECOND), random.choice((1, 5)))


async def retire(age: Micros, limit: int, store: Store, ledger: Ledger) -> object:
    """Purge jobs and forget deletions, as retention does."""
    found = await store.find_purgeable(age, after=0, limit=limit)
    outlived = sorted(await store.find_outlived(limit=ALL))
    commands = [Purge(job_id=job_id, age=age) for job_id in (*found.jobs, *outlived)]
    purged = commands and await submit(commands, store, ledger)
    return outlived, purged, await store.compact_deletions(age, limit=limit)


def _webhooks(random: chance.Random, _: Sequence[Job]) -> Call:
    return partial(call_webhooks, some_webhook_calls(random))


async def call_webhooks(calls: Sequence[WebhookCall], store: Store, _: Ledger) -> object:
    """Make calls about webhooks, one after the other."""
    answers: list[object] = []
    for call in calls:
        try:
            answers.append(await call(store))
        except (LimitExceeded, RequestIdReused) as error:
            answers.append(said(error))
    return answers
