"""Every read of a store, with arguments that chance decides."""

import random as chance
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from jobledger_server.domain.job import Instant, Job, JobStatus, Micros, Phase
from jobledger_server.store import (
    START_OF_ACTIVE,
    Change,
    FeedHead,
    FeedPage,
    JobQuery,
    News,
    Store,
)
from tests.integration.store.histories.commands import OWNERS, TENANTS, TYPES
from tests.integration.store.histories.webhook_calls import IDS

Read = Callable[[Store], Awaitable[object]]


def reads(random: chance.Random, jobs: Sequence[Job], head: int) -> Mapping[str, Read]:
    """Return the reads by their names.

    Args:
        random: Decides the arguments.
        jobs: All jobs.
        head: The feed's.
    """
    ids = [job.id for job in jobs]
    after, limit = random.randint(0, head), random.choice((1, 3, 100))
    position = replace(START_OF_ACTIVE, user_id=random.choice(("", *OWNERS)))
    active = {"until": after, "limit": limit}
    query, before = _some_query(random, jobs), random.choice([None, *ids])
    worker = random.choice([job.worker_id for job in jobs] or [""])
    counts = {"job_types": random.choice(((), TYPES))}
    after_type = random.choice(("", *TYPES))
    some = random.sample(ids, min(3, len(ids)))
    start = random.choice((0, 1, 31, 2000))
    age = Micros(random.choice((0, 10**8, 10**10)))
    return {
        "changes": lambda store: changes(store, after, limit=limit),
        "changes until": lambda store: changes(store, 0, limit=limit, until=after),
        **{
            f"changes of {user_id}": lambda store, user_id=user_id: changes(
                store, after, limit=limit, user_id=user_id
            )
            for user_id in OWNERS
        },
        "active": lambda store: store.active_jobs(position, **active),
        "active of one": lambda store: store.active_jobs(position, **active, user_id="ada"),
        "active of some": lambda store: store.active_jobs(position, **active, ids=some),
        "jobs": lambda store: store.read_jobs(ids, full=True),
        "list": lambda store: store.list_jobs(query, before=before, limit=limit),
        "config": lambda store: store.config(),
        "type defaults": lambda store: store.queue_settings.type_defaults(
            after=after_type, limit=limit
        ),
        "news": _news,
        "rechecks": lambda store: store.find_rechecks(after="", limit=limit),
        "count": lambda store: store.count_active("ada", limit=limit),
        "held": lambda store: store.find_held(worker, TYPES[:2], limit=limit),
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
        "webhooks": lambda store: store.webhooks.listed(user_id="", after="", limit=100),
        "webhooks of ada": lambda store: store.webhooks.listed(
            user_id="ada", after=IDS[1], limit=limit
        ),
        **{
            f"{kind} of {job.id}": lambda store, kind=kind, job=job: _of_job(store, kind, job)
            for job in random.sample(jobs, min(5, len(jobs)))
            for kind in ("attempts", "assets", "facts")
        },
        "output": lambda store: _output(store, jobs, start, limit),
    }


async def all_jobs(store: Store) -> list[Job]:
    """Return the jobs that exist."""
    page = await store.list_jobs(JobQuery(user_id=None), before=None, limit=10_000)
    return list(page.jobs)


async def feed_head(store: Store) -> FeedHead:
    """Return the feed's head, without its epoch and its database's identity, which differ."""
    return _anywhere(await store.feed_head())


async def _news(store: Store) -> News:
    news = await store.news(TYPES)
    return replace(news, head=_anywhere(news.head))


async def changes(store: Store, after: int, **options: Any) -> FeedPage:
    """Return changes, without what differs: epochs, and what is not kept for the feed.

    That is the request ids of deleted jobs, whether a job's first start was by its id, and which
    streams of output it had by then.
    """
    page = await store.changes_after(after, **options)
    found = [_kept(change) for change in page.changes]
    return FeedPage(_anywhere(page.head), found, page.through)


def _kept(change: Change) -> Change:
    return replace(
        change, job=replace(change.job, request_id="", started_by_id=False, output_streams={})
    )


async def _of_job(store: Store, kind: str, job: Job) -> object:
    match kind:
        case "attempts":
            return await store.list_attempts(job.id, after=0, limit=9)
        case "assets":
            return await store.list_assets(job.id, after=None, limit=9)
        case _:
            return await store.queue_reports.wait_facts(job.id, user_id=None)


async def _output(store: Store, jobs: Sequence[Job], start: int, limit: int) -> object:
    """Return the output of all jobs: what begins there or later, and where each stream ends."""
    streams = [(job.id, stream) for job in jobs for stream in job.output_streams]
    after = [(*stream, start) for stream in streams]
    pieces = await store.outputs.read(after, limit=limit) if after else []
    return (
        sorted(pieces, key=lambda piece: (piece.job_id, piece.stream)),
        [await store.outputs.tail(*stream) for stream in streams],
        [await store.outputs.piece_at(*stream, start) for stream in streams],
    )


def _some_query(random: chance.Random, jobs: Sequence[Job]) -> JobQuery:
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
        "cancelled": seldom(random.random() < 0.5, None),
        "unique_key": seldom(random.choice(("u1", "u2")), ""),
        "request_id": seldom(f"r{random.randrange(9)}", ""),
        "concurrency_key": seldom(random.choice(("k", "k:1")), ""),
        "phases": seldom(frozenset(random.sample(list(Phase), 2)), frozenset()),
        "worker_id": seldom(random.choice(("w", "none")), ""),
        "not_rerun": seldom(True, False),  # noqa: FBT003
        "uncancelled": seldom(True, False),  # noqa: FBT003
    }
    return JobQuery(user_id=random.choice((None, *OWNERS)), **filters)


def _anywhere(head: FeedHead) -> FeedHead:
    return replace(head, epoch="", identity="")
