"""Counts, and what keeps a job waiting. See `queue_store.QueueReports`."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from jobledger_server.domain.job import MICROS_PER_SECOND, Instant, Job, JobId, JobStatus, Phase
from jobledger_server.domain.limits import MAX_COUNTED, MAX_HOLDERS, MAX_REPORTED_REASONS
from jobledger_server.domain.queues import ENDED_STEP, OTHER_REASON, KeyState, QueueName, queue_name
from jobledger_server.domain.waiting import Queued, WaitFacts
from jobledger_server.queue_store import EndedCount, PhaseCounts, StatsPage, TypeStats
from jobledger_world.memory.link import Database
from jobledger_world.memory.rows import Row, in_queue, with_key
from jobledger_world.memory.tables import Tables
from jobledger_world.memory.waiting import key_state, rules_of

MINUTE, HOUR = 60 * MICROS_PER_SECOND, 3600 * MICROS_PER_SECOND


class MemoryQueueReports:
    """See `queue_store.QueueReports`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def stats(
        self,
        *,
        limit: int,
        after: str = "",
        job_types: Collection[str] = (),
        fairness_key: str = "",
    ) -> StatsPage:
        def read() -> StatsPage:
            now, tables = self._database.clock(), self._database.tables
            named = set(job_types) or _names(tables, fairness_key, now)
            names = sorted(name for name in named if name > after)
            types = [_type_stats(tables, name, fairness_key, now) for name in names[:limit]]
            return StatsPage(now, types, more=len(names) > limit)

        return await self._database.read(read)

    async def wait_facts(self, job_id: JobId, *, user_id: str | None) -> WaitFacts | None:
        def read() -> WaitFacts | None:
            row = self._database.tables.kept(job_id)
            if row is None or user_id not in (None, row.job.user_id):
                return None
            return _facts(self._database.tables, row.job, user_id, self._database.clock())

        return await self._database.read(read)


def _names(tables: Tables, tenant: str, now: Instant) -> set[str]:
    """Return the types that have jobs of a tenant; of all, or are paused, or had jobs end."""
    if tenant:
        return {name for name, _ in _counts(tables, tenant)}
    ended = {name for name, time, *_ in tables.ended if time > _since(now, HOUR)}
    return {*(name for name, _ in _counts(tables, "")), *tables.paused_types, *ended}


def _counts(tables: Tables, tenant: str) -> Mapping[tuple[str, int], PhaseCounts]:
    """Return by type and priority how many jobs there are, of a tenant or of all."""
    counts: defaultdict[tuple[str, int], PhaseCounts] = defaultdict(PhaseCounts)
    for name, queue in tables.queues.items():
        if tenant in ("", name.tenant) and any(queue.phases):
            counts[name.job_type, name.priority] += PhaseCounts(*queue.phases)
    return counts


def _type_stats(tables: Tables, name: str, tenant: str, now: Instant) -> TypeStats:
    counts = {
        priority: count
        for (job_type, priority), count in sorted(_counts(tables, tenant).items(), reverse=True)
        if job_type == name
    }
    pause = tables.paused_types.get(name)
    polled = _is_polled(tables, name, now)
    if tenant:
        return TypeStats(name, counts, None, pause, polled)
    queues = (each for each in tables.queues if each.job_type == name)
    ready = (row for each in queues for row in tables.in_group(in_queue(each, Phase.READY)))
    return TypeStats(
        name,
        counts,
        min((_since_when(row.job) for row in _heads(ready)), default=None),
        pause,
        polled,
        *_ended(tables, name, now),
    )


def _heads(rows: Iterable[Row]) -> Collection[Row]:
    """Return the oldest job of each queue."""
    heads: dict[QueueName, Row] = {}
    for row in sorted(rows, key=lambda row: (row.job.create_time, row.job.id)):
        heads.setdefault(queue_name(row.job), row)
    return heads.values()


def _since_when(job: Job) -> Instant:
    """Return since when a ready job waits: since it was created, or became due."""
    due = job.retry_time if job.retry_time is not None else job.schedule_time
    return max(job.create_time, due or job.create_time)


def _is_polled(tables: Tables, job_type: str, now: Instant) -> bool:
    return any(name == job_type and until > now for (name, _), until in tables.pollers.items())


def _since(now: Instant, span: int) -> int:
    """Return the time after which the steps begin that are not over before the span."""
    return now - span - ENDED_STEP


def _ended(
    tables: Tables, job_type: str, now: Instant
) -> tuple[Sequence[EndedCount], Sequence[EndedCount]]:
    """Return what ended in the last minute and hour, with the rarest reasons of the hour as one."""
    minute: Counter[tuple[JobStatus, str]] = Counter()
    hour: Counter[tuple[JobStatus, str]] = Counter()
    for (name, time, status, reason), count in tables.ended.items():
        if name == job_type and time > _since(now, HOUR):
            hour[status, reason] += count
            if time > _since(now, MINUTE):
                minute[status, reason] += count
    common = set(sorted(hour, key=lambda each: _order(each, hour))[:MAX_REPORTED_REASONS])
    spans: list[Sequence[EndedCount]] = []
    for span in (minute, hour):
        merged: Counter[tuple[JobStatus, str]] = Counter()
        for (status, reason), count in span.items():
            merged[status, reason if (status, reason) in common else OTHER_REASON] += count
        ordered = sorted(merged, key=lambda each: _order(each, merged))
        spans.append([EndedCount(*each, merged[each]) for each in ordered])
    return spans[0], spans[1]


def _order(
    each: tuple[JobStatus, str], counts: Mapping[tuple[JobStatus, str], int]
) -> tuple[int, str, str]:
    return -counts[each], each[0].value, each[1]


def _facts(tables: Tables, job: Job, user_id: str | None, now: Instant) -> WaitFacts:
    if job.phase in (None, Phase.HELD, Phase.WAITING):
        return WaitFacts(job, polled=True)
    key = job.concurrency_key
    holding = [row.job for row in tables.in_group(with_key(key, Phase.HELD))] if key else []
    holders = sorted(holding, key=lambda each: (each.create_time, each.id))
    rules = rules_of(tables, key) if key else []
    return WaitFacts(
        job,
        polled=_is_polled(tables, job.job_type, now),
        type_pause=tables.paused_types.get(job.job_type),
        key=key_state(tables, key) if key else KeyState(),
        key_pauses=[(name, rule.pause) for name, rule in rules if rule.pause is not None],
        holders=[each.id for each in holders if user_id in (None, each.user_id)][:MAX_HOLDERS],
        place=_place(tables, job),
    )


def _place(tables: Tables, job: Job) -> Queued:
    """Return where a job stands, or would stand, in its queue."""
    rows = tables.in_group(in_queue(queue_name(job), Phase.READY))
    own = (job.create_time, job.id)
    ahead = sum((row.job.create_time, row.job.id) < own for row in rows)
    higher = (
        level.phases[Phase.READY]
        for (job_type, priority), level in tables.levels.items()
        if job_type == job.job_type and priority > job.priority
    )
    tenants = (
        (name.job_type, name.priority) == (job.job_type, job.priority)
        and queue.phases[Phase.READY] > 0
        for name, queue in tables.queues.items()
    )
    return Queued(
        ahead=min(ahead, MAX_COUNTED),
        capped=ahead > MAX_COUNTED,
        higher_priority=sum(higher),
        tenants=min(sum(tenants), MAX_COUNTED),
    )
