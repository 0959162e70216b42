"""Which jobs of a part of the feed are to be purged.

The feed has the jobs in the order in which they finished, so the first one that is too young ends a
search. A wrong clock breaks that order: a job may have a `complete_time` that is in the future, or
later than those of jobs that finished after it. Such a job is passed over, and purged by itself
when its time has come. It ends a search only if its time has passed, it is not old enough, and the
changes after it that are read have no old job: that lasts no longer than the age of jobs to purge.

Pure: nothing is read or stored.
"""

from collections.abc import Sequence

from msgspec import Struct

from jobledger_server.domain.job import Instant, JobId, Micros

End = tuple[int, JobId, Instant | None]
"""A change: its sequence number, its job and the job's `complete_time`, if it is the job's last
change and no deletion."""

Finished = tuple[Instant, JobId]
"""A terminal job: its `complete_time` and its id."""


class Purgeable(Struct, frozen=True):
    """What a search found.

    Attributes:
        jobs: Jobs to purge.
        before: They finished before this time.
        later: Jobs that were passed over, which are to be purged later.
        through: No other job to purge is left up to this sequence number.
        more: Whether others may follow.
    """

    jobs: Sequence[JobId]
    before: Instant
    later: Sequence[Finished]
    through: int
    more: bool


def purgeable(
    changes: Sequence[End], *, after: int, now: Instant, age: Micros, limit: int, scanned: int
) -> Purgeable:
    """Return the jobs to purge of some changes, which follow `after` in the feed.

    Args:
        changes: The changes, in their order.
        after: The sequence number before them.
        now: The database's time.
        age: How long the jobs must have been terminal.
        limit: Jobs to purge at most.
        scanned: If there are fewer changes, the feed ends with them.
    """
    before = Instant(now - age)
    old: list[JobId] = []
    later: list[Finished] = []
    young: list[Finished] = []  # with no old job after the first of them
    through = after
    for seq, job_id, time in changes:
        if time is None:
            if not young:
                through = seq
        elif time < before:
            if len(old) == limit:
                return Purgeable(old, before, later, through, more=True)
            old.append(job_id)
            later += young
            young.clear()
            through = seq
        elif time > now and not young:
            later.append((time, job_id))
            through = seq
        else:
            young.append((time, job_id))
    return Purgeable(old, before, later, through, more=not young and len(changes) == scanned)
