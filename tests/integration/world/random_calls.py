"""Calls of a store or its ledger that a seed decides."""

import random as chance
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Claim,
    Command,
    Create,
    Delete,
    LinkAsset,
    Purge,
    Release,
    Report,
)
from jobledger_server.domain.job import (
    MICROS_PER_SECOND,
    AssetLink,
    Instant,
    Job,
    JobError,
    JobStatus,
    Micros,
    Payload,
)
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.ledger.allocation import Allocation
from jobledger_server.ledger.due_jobs import make_due_ready
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.unblocking import unblock
from jobledger_server.maintenance.sweeper import Sweeper
from jobledger_server.store import JobQuery, Store

OWNERS = ("ada", "bob")
TYPES = ("a", "b", "c")
TENANTS = ("ada", "t1", "t2")
KEYS = ("", "", "k", "k:1", "k:2", "other")
NAMES = ("k", "k:1", "other")
SECOND = MICROS_PER_SECOND

Call: TypeAlias = Callable[[Store, Ledger], Awaitable[object]]


def some_call(random: chance.Random, jobs: Sequence[Job]) -> Call:
    """Return a call, about these jobs if it is about any."""
    kinds: dict[Callable[[chance.Random, Sequence[Job]], Call], int] = {
        _commands: 10,
        _claims: 5,
        _expires: 2,
        _makes_ready: 3,
        _unblocks: 3,
        _sets: 3,
        _sweeps: 1,
        _retires: 1,
    }
    return random.choices(list(kinds), list(kinds.values()))[0](random, jobs)


def some_query(random: chance.Random, jobs: Sequence[Job]) -> JobQuery:
    """Return a query with some filters."""

    def seldom(value: object, otherwise: object) -> object:
        return value if random.random() < 0.2 else otherwise

    times = [job.create_time for job in jobs] or [Instant(0)]
    filters = {
        "statuses": seldom(frozenset({random.choice(list(JobStatus))}), frozenset()),
        "job_types": seldom(frozenset({random.choice(TYPES)}), frozenset()),
        "labels": seldom({"n": "1"}, {}),
        "created_after": seldom(random.choice(times), None),
        "created_before": seldom(random.choice(times), None),
        "error_reasons": seldom(frozenset({"X", "CANCELLED"}), frozenset()),
        "held": seldom(random.random() < 0.5, None),
        "unrepeated": seldom(True, False),  # noqa: FBT003
        "uncancelled": seldom(True, False),  # noqa: FBT003
    }
    return JobQuery(user_id=random.choice((None, *OWNERS)), **filters)


def _creation(random: chance.Random, jobs: Sequence[Job]) -> Command:
    ended = [job for job in jobs if job.status in TERMINAL]
    repeated = random.choice(ended) if ended and random.random() < 0.1 else None
    later = random.choice((None, None, 5, 100, 5000))
    return Create(
        user_id=repeated.user_id if repeated else random.choice(OWNERS),
        job_type=repeated.job_type if repeated else random.choice(TYPES),
        parameters=random.choice((None, Payload(b"p" * 9))),
        labels=random.choice(({}, {"n": "1"}, {"n": "2", "ü": "🎬"})),
        request_id=random.choice(("", "", *(f"r{n}" for n in range(9)))),
        max_attempts=random.randint(1, 3),
        initial_backoff=Micros(random.choice((1, 10 * SECOND))),
        schedule_time=later and Instant((1_800_000_000 + later) * SECOND),
        queue_timeout=Micros(random.choice((100, 10_000, 10**6)) * SECOND),
        stall_timeout=random.choice((None, Micros(15 * SECOND))),
        run_timeout=random.choice((None, Micros(500 * SECOND))),
        origin_job_id=repeated and repeated.id,
        priority=random.choice((1, 5, 5, 9)),
        fairness_key=random.choice(("", "t1", "t2")),
        concurrency_key=random.choice(KEYS),
        unique_key=random.choice(("", "", "", "u1", "u2")),
        return_existing=random.random() < 0.5,
    )


def _command(random: chance.Random, jobs: Sequence[Job]) -> Command:
    held = [job for job in jobs if job.leased]
    if not jobs or random.random() < 0.3:
        return _creation(random, jobs)
    job = random.choice(held if held and random.random() < 0.9 else jobs)
    id_, number = job.id, random.randint(1, 99)
    named = random.sample(range(5), random.randint(0, 2))
    links = tuple(AssetLink("t", "", f"p{n}", n, f"n{n}") for n in named)
    result = Payload(b"r")
    error = JobError(random.choice(("X", "Y")), "no")
    delay = Micros(random.choice((0, 30 * SECOND)))
    return random.choice(
        (
            Report(job_id=id_, attempt=job.attempt, progress=number),
            Report(job_id=id_, attempt=job.attempt),
            Report(job_id=id_, checkpoint=Payload(bytes([number])), number=number),
            LinkAsset(
                job_id=id_,
                link=AssetLink("t", "", f"q{number}", number, f"n{number % 5}"),
                request_id=random.choice(("", f"l{number % 9}")),
            ),
            Release(job_id=id_, attempt=job.attempt, delay=delay),
            ChangeStatus(job_id=id_, target=JobStatus.PROCESSING, worker_id="w"),
            ChangeStatus(job_id=id_, target=JobStatus.COMPLETED, result=result, assets=links),
            ChangeStatus(job_id=id_, target=JobStatus.PARTIAL, error=error),
            ChangeStatus(
                job_id=id_,
                target=JobStatus.FAILED,
                error=error,
                error_details=Payload(b"d"),
                retryable=random.random() < 0.7,
            ),
            Cancel(job_id=id_, user_id=job.user_id, reason="enough"),
            Delete(job_id=id_, user_id=job.user_id),
        )
    )


def _commands(random: chance.Random, jobs: Sequence[Job]) -> Call:
    commands = [_command(random, jobs) for _ in range(random.randint(1, 5))]
    return partial(_submitted, commands)


async def _submitted(
    commands: Sequence[Command | Allocation], _: Store, ledger: Ledger
) -> list[object]:
    outcomes = await ledger.submit(commands, SERVICE)
    return [str(each) if isinstance(each, Exception) else each for each in outcomes]


def _claims(random: chance.Random, _: Sequence[Job]) -> Call:
    claim = Claim(
        worker_id="w",
        job_types={random.choice(TYPES)},  # of several types the order is random
        max_jobs=random.randint(1, 5),
        lease_duration=Micros(60 * SECOND),
    )

    async def call(store: Store, ledger: Ledger) -> object:
        # SQL may give a claim fewer jobs while others are overdue.
        expired = await ledger.expire(limit=100)
        found = await store.find_claimable(dict.fromkeys(claim.job_types, 9), limit=9)
        claimed = await _submitted([Allocation(claim, lambda: True, None)], store, ledger)
        return expired, found, claimed

    return call


def _expires(random: chance.Random, _: Sequence[Job]) -> Call:
    limit = random.choice((1, 100))

    async def call(_: Store, ledger: Ledger) -> object:
        return await ledger.expire(limit=limit)

    return call


def _makes_ready(random: chance.Random, _: Sequence[Job]) -> Call:
    limit = random.choice((1, 100))

    async def call(store: Store, ledger: Ledger) -> object:
        return await make_due_ready(store, ledger.known_limits, most=limit)

    return call


def _unblocks(_: chance.Random, __: Sequence[Job]) -> Call:
    async def call(store: Store, ledger: Ledger) -> object:
        keys = await store.find_rechecks(after="", limit=9)
        return keys, [await unblock(store, ledger.known_limits, key) for key in keys]

    return call


def _sets(random: chance.Random, _: Sequence[Job]) -> Call:
    name, job_type, limit = (random.choice(each) for each in (NAMES, TYPES, (None, 0, 1, 2)))
    kind = random.choice(("limit", "limit", "pause", "resume", "pause type", "resume type"))

    async def call(store: Store, ledger: Ledger) -> object:
        settings = store.queue_settings
        match kind:
            case "limit":
                done: object = await settings.set_limit(name, limit)
            case "pause":
                done = await settings.pause_key(name, actor="x", reason="y")
            case "resume":
                done = await settings.resume_key(name)
            case "pause type":
                done = await settings.pause_type(job_type, actor="x", reason="y")
            case _:
                done = await settings.resume_type(job_type)
        await ledger.known_limits.refresh()
        return done

    return call


def _sweeps(_: chance.Random, __: Sequence[Job]) -> Call:
    async def call(store: Store, _: Ledger) -> object:
        return [deleted for each in Sweeper(store).passes async for deleted in each()]

    return call


def _retires(random: chance.Random, _: Sequence[Job]) -> Call:
    age, limit = Micros(random.choice((100, 10_000)) * SECOND), random.choice((1, 5))

    async def call(store: Store, ledger: Ledger) -> object:
        found = await store.find_purgeable(age, after=0, limit=limit)
        commands = [Purge(job_id=job_id, age=age) for job_id in found.jobs]
        purged = commands and await _submitted(commands, store, ledger)
        return purged, await store.compact_deletions(age, limit=limit)

    return call
