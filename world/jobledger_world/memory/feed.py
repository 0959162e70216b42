"""The feed: its changes, the jobs that a watch begins with, and what retention takes from it."""

from collections.abc import Collection, Sequence

from jobledger_server.domain.job import Instant, JobId
from jobledger_server.domain.retention import End
from jobledger_server.store import (
    ActivePage,
    ActivePosition,
    Change,
    FeedCompacted,
    FeedPage,
)
from jobledger_world.memory.rows import ACTIVE, DELETED, KEPT, active_of
from jobledger_world.memory.tables import Tables


def page(
    tables: Tables, seq: int, *, limit: int, user_id: str | None, until: int | None
) -> FeedPage:
    """See `store.Store.changes_after`."""
    head = tables.head
    if seq < head.compacted_seq:
        raise FeedCompacted
    last = head.seq if until is None else min(until, head.seq)
    if seq >= last:
        return FeedPage(head, [], seq)
    changes = tables.changes(seq, last, limit=limit, user_id=user_id)
    return FeedPage(head, changes, last if len(changes) < limit else changes[-1].seq)


def active(
    tables: Tables,
    after: ActivePosition,
    *,
    until: int,
    limit: int,
    user_id: str | None,
    ids: Collection[JobId],
) -> ActivePage:
    """See `store.Store.active_jobs`."""
    first = (after.user_id if user_id is None else user_id, after.job_id)
    rows = tables.in_group(ACTIVE if user_id is None else active_of(user_id))
    found = {(row.job.user_id, row.job.id): Change(row.job, row.seq) for row in rows}
    positions = sorted(each for each in found if each > first and (not ids or each[1] in ids))
    some = [found[each] for each in positions[:limit]]
    last = None if len(some) < limit else ActivePosition(*positions[limit - 1])
    # A job that changed since is left out: the feed has it after `until`.
    return ActivePage([change for change in some if change.seq <= until], last)


def ends(tables: Tables, after: int, *, scanned: int) -> Sequence[End]:
    """Return the changes that a search for old jobs reads."""
    found: list[End] = []
    for change in tables.changes(after, tables.head.seq, limit=scanned):
        row = tables.rows[change.job.id]
        is_end = change.seq == row.seq and row.deletion is None and row.job.retention is None
        is_end = is_end and row.job.group_id is None  # it is deleted with its group
        found.append((change.seq, row.job.id, row.job.complete_time if is_end else None))
    return found


def outlived(tables: Tables, now: Instant, *, limit: int) -> list[JobId]:
    """See `store.Store.find_outlived`."""
    ends = (
        (row.job.complete_time + row.job.retention, row.job.id)
        for row in tables.in_group(KEPT)
        if row.job.complete_time is not None and row.job.retention is not None
        if row.job.group_id is None
    )
    return [job_id for time, job_id in sorted(ends) if time < now][:limit]


def compact(tables: Tables, before: Instant, *, limit: int) -> int:
    """See `store.Store.compact_deletions`; `before` is when the jobs must have been deleted."""
    deletions = [row.deletion for row in tables.in_group(DELETED) if row.deletion is not None]
    oldest = sorted(deletions, key=lambda change: change.seq)[:limit]
    last = max((each.seq for each in oldest if each.job.update_time < before), default=0)
    forgotten = [each.job.id for each in oldest if each.seq <= last]
    for job_id in forgotten:
        tables.forget(job_id)
    tables.compacted_seq = max(tables.compacted_seq, last)
    return len(forgotten)
