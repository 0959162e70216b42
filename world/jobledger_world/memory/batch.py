"""The rows that a number of decisions write."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from jobledger_server.domain.job import Asset, AssetId, Instant, Job, JobId, Payloads
from jobledger_server.domain.leases import deadline, is_report
from jobledger_server.domain.state_machine import TERMINAL, Decision
from jobledger_server.store import Change, StoreConflict
from jobledger_world.memory.rows import OF_ONE, Group, Row
from jobledger_world.memory.tables import Tables


class Batch:
    """What decisions write, which nobody else sees before the commit.

    Args:
        tables: What is committed.
        decisions: Each changes or renews its job, which is new or locked.
        locked: The jobs that are locked.
        now: The database's time.

    Attributes:
        rows: The rows, as the decisions leave them.
        changes: The changes.

    Raises:
        StoreConflict: They contradict what is committed, or each other.
    """

    def __init__(
        self,
        tables: Tables,
        decisions: Sequence[Decision],
        locked: Mapping[JobId, Change],
        now: Instant,
    ) -> None:
        self.rows: dict[JobId, Row] = {}
        self.changes: list[Change] = []
        self._tables = tables
        seq = tables.head.seq
        for decision in decisions:
            job = decision.job
            if job.id in tables.rows and job.id not in locked:
                raise StoreConflict(f"{job.id} exists, and is not locked")
            change = None
            if decision.changed:
                seq += 1
                made = () if decision.transition is None else (decision.transition,)
                change = Change(job, seq, made, decision.deleted)
                self.changes.append(change)
            before = self.rows.get(job.id) or tables.rows.get(job.id)
            self.rows[job.id] = _row_after(before, decision, change)
        for job_id, row in self.rows.items():
            at = _deadline(tables.rows.get(job_id), row.job, now)
            self.rows[job_id] = replace(row, deadline=at)
            for group in row.groups():
                if group[0] in OF_ONE and len(self.members(group)) > 1:
                    raise StoreConflict(f"two jobs are {group}")

    def members(self, group: Group) -> set[JobId]:
        """Return the jobs of a group as they are after the commit."""
        others = (each for each in self._tables.members(group) if each not in self.rows)
        own = (job_id for job_id, row in self.rows.items() if group in row.groups())
        return {*others, *own}

    def row(self, job_id: JobId) -> Row:
        """Return a job's row as it is after the commit."""
        return self.rows.get(job_id) or self._tables.rows[job_id]


def _deadline(before: Row | None, job: Job, now: Instant) -> Instant | None:
    """Return the deadline for a job's row; `store.Transaction.find_overdue` says when it stays."""
    if before is not None and is_report(before.job, job, now):
        return before.deadline
    return deadline(job)


def _row_after(before: Row | None, decision: Decision, change: Change | None) -> Row:
    job = decision.job
    if change is None:
        if before is None:
            raise StoreConflict(f"{job.id} does not exist")
        return replace(before, job=job)
    if before is None:
        return Row(job, change.seq, payloads=decision.payloads)
    if before.deletion is not None:
        raise StoreConflict(f"{job.id} was deleted")
    if decision.deleted:
        return replace(before, deletion=change, payloads=Payloads())
    transition = decision.transition
    is_end = job.status in TERMINAL
    attempts = before.attempts
    if decision.ended is not None:
        if decision.ended.number in attempts:
            raise StoreConflict(f"attempt {decision.ended.number} has ended already")
        attempts = {**attempts, decision.ended.number: decision.ended}
    return replace(
        before,
        job=job,
        seq=change.seq,
        payloads=_merged(before.payloads, decision.payloads),
        start=before.start if transition is None or is_end else change,
        end=transition if is_end else None,
        attempts=attempts,
        assets=_with_assets(before, decision),
    )


def _merged(before: Payloads, new: Payloads) -> Payloads:
    """Return the payloads with those that are new."""
    names = Payloads.__struct_fields__
    return Payloads(*(getattr(new, name) or getattr(before, name) for name in names))


def _with_assets(before: Row, decision: Decision) -> Mapping[AssetId, Asset]:
    """Return the assets with those that are new or changed. Two have no name or request in common.

    Raises:
        StoreConflict: Two have.
    """
    new = (*decision.updated, *decision.assets)
    if not new:
        return before.assets
    assets = {**before.assets, **{asset.id: asset for asset in new}}
    for names in (
        [asset.link.name for asset in assets.values()],
        [asset.request_id for asset in assets.values()],
    ):
        given = [name for name in names if name]
        if len(given) > len(set(given)):
            raise StoreConflict("two assets have one name or request")
    return assets
