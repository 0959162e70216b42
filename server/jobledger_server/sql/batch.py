"""The rows that a batch of decisions writes.

A job is written in one of five ways: as a report, which changes no index; as a state, with
everything that can change from its start to its end; as ended; as deleted; or as moved, with its
queue, if it was updated before its start. A group is written as counts of its children, which
change no index either, or with everything that can change until its deletion.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from jobledger_server.domain.groups import is_count
from jobledger_server.domain.job import (
    NO_PAYLOADS,
    Asset,
    AssetId,
    Instant,
    Job,
    JobId,
    JobStatus,
    Payload,
    Phase,
)
from jobledger_server.domain.leases import is_report
from jobledger_server.domain.output import OutputCut, OutputPiece
from jobledger_server.domain.queues import Tally
from jobledger_server.domain.state_machine import Decision, was_just_started
from jobledger_server.sql.counters import counted
from jobledger_server.sql.driver import Writes
from jobledger_server.sql.history import NO_HISTORY, with_deletion, with_transition
from jobledger_server.sql.rows import (
    CHECKPOINT,
    PARAMETERS,
    JobRows,
    Row,
    asset_row,
    attempt_row,
    count_rows,
    deletion_rows,
    end_rows,
    group_rows,
    job_rows,
    move_rows,
    report_rows,
    state_rows,
)
from jobledger_server.sql.statements import Statements
from jobledger_server.sql.tables import NewSeq
from jobledger_server.sql.write_statements import Update, WriteStatement
from jobledger_server.store import Change


class DecisionBatch:
    """What a number of decisions write; see `driver.Batch`.

    A job that several decisions changed is written once, as the last one left it, with each
    transition.

    Args:
        statements: Those of the database.
        decisions: Each changes or renews its job.
        loaded: The latest changes of those jobs that existed before.
        tally: What the decisions do to the counters.
        settled: The keys whose free slots they give to blocked jobs.
        config_version: The version of what operators set by which they were decided, if they
            depend on it.
        now: The database server's time.
        outputs: What is appended to outputs of these jobs or of others.
        cuts: What of them is dropped.
    """

    def __init__(
        self,
        statements: Statements,
        decisions: Sequence[Decision],
        loaded: Mapping[JobId, Change],
        *,
        tally: Tally,
        settled: Collection[str],
        config_version: int | None,
        now: Instant,
        outputs: Sequence[OutputPiece] = (),
        cuts: Sequence[OutputCut] = (),
    ) -> None:
        self._statements = statements
        self._decisions = decisions
        self._changed = [decision for decision in decisions if decision.changed]
        self._loaded = loaded
        self._tally, self._settled = tally, settled
        self._now = now
        self._outputs, self._cuts = outputs, cuts
        # Those that do more than report: the others, which are most, are passed over.
        self._more = [
            (place, each)
            for place, each in enumerate(self._changed, start=1)
            if each.deleted or each.transition is not None or each.ended is not None
        ]
        self._deleted = {decision.job.id for decision in decisions if decision.deleted}
        self.count = len(self._changed)
        self.new = sum(decision.job.version == 1 for decision in self._changed)
        self.moves = any(map(_is_update, self._changed))
        self.locks_feed = bool(self.count or tally.queues)
        # A creation may use the request id of a deleted job, or the unique key of a finished one.
        self.updates_first = bool(self._deleted) or any(
            each.job.unique_key and each.job.phase is None for each in decisions
        )
        self.config_version = config_version

    def changes(self, *, after: int) -> list[Change]:
        """Return the changes, at the sequence numbers after this one."""
        return [
            Change(
                decision.job,
                seq,
                (decision.transition,) if decision.transition else (),
                decision.deleted,
            )
            for seq, decision in enumerate(self._changed, start=after + 1)
        ]

    def written(self, changes: Sequence[Change], *, after: int) -> list[Change]:
        """Return each job as its row holds it then, at its latest change but its deletion.

        `changes` are those of `changes`.
        """
        made = {change.job.id: change for change in changes}
        written = []
        for job, seq in self._latest(after).values():
            change = made.get(job.id)
            if change is None or change.job is not job:
                change = Change(job, self._loaded[job.id].seq if seq is None else seq)
            written.append(change)
        return written

    def _latest(self, after: int) -> dict[JobId, tuple[Job, NewSeq | None]]:
        """Return each job as the last of its decisions left it, and where its latest change is.

        That is None if it is where it was before. A deleted job is as it was before, without its
        request id, which is how it is stored.
        """
        latest: dict[JobId, tuple[Job, NewSeq | None]] = {}
        seq = after
        for decision in self._decisions:
            job = decision.job
            seq += decision.changed
            if decision.changed and not decision.deleted:
                latest[job.id] = job, NewSeq(seq)
                continue
            if job.id in latest:
                previous, at = latest[job.id]
            else:
                previous, at = self._loaded[job.id].job, None
            latest[job.id] = replace(previous, request_id="") if decision.deleted else job, at
        return latest

    def _histories(self, after: int) -> dict[JobId, Sequence[Any]]:
        """Return the HISTORY_COLUMNS of the jobs that make transitions or are deleted."""
        histories: dict[JobId, Sequence[Any]] = {}
        for place, decision in self._more:
            job, seq = decision.job, NewSeq(after + place)
            history = histories.get(job.id, NO_HISTORY)
            if decision.deleted:
                histories[job.id] = with_deletion(history, job, seq)
            elif decision.transition is not None:
                histories[job.id] = with_transition(history, decision.transition, job, seq)
        return histories

    def _payload_rows(self, kind: int, name: str) -> list[Row]:
        """Return a row for the latest payload of this name of each job that is not deleted."""
        latest: dict[JobId, Payload] = {}
        for decision in self._changed:
            if decision.payloads is NO_PAYLOADS:
                continue
            payload = getattr(decision.payloads, name)
            if payload is not None and decision.job.id not in self._deleted:
                latest[decision.job.id] = payload
        return [(job_id, kind, payload) for job_id, payload in latest.items()]

    def _assets(self) -> tuple[Collection[Asset], Collection[Asset]]:
        """Return the new assets, and the stored ones that change, as they are in the end."""
        new: dict[AssetId, Asset] = {}
        updated: dict[AssetId, Asset] = {}
        for decision in self._changed:
            for asset in decision.updated:
                (new if asset.id in new else updated)[asset.id] = asset
            for asset in decision.assets:
                new[asset.id] = asset
        return new.values(), updated.values()

    def counts(self) -> Writes:
        """Return the statements that change counters, with their rows."""
        return counted(self._tally, self._settled)

    def _update(self, before: Job, job: Job) -> tuple[Update, JobRows]:
        """Return the statement that writes the fewest columns of those that a job may change."""
        statements = self._statements
        if job.children is not None and job.id not in self._deleted:
            if is_count(before, job):
                return statements.count_groups, count_rows
            return statements.update_groups, group_rows
        if before.updates != job.updates:
            return statements.move_jobs, move_rows
        if job.complete_time is None:
            return statements.update_jobs, state_rows
        return statements.end_jobs, end_rows

    def writes(self, *, after: int) -> Writes:
        """Return the other statements with their rows, at the sequence numbers after this one."""
        statements = self._statements
        # In the order in which they run where the order matters.
        rows: dict[WriteStatement, list[Row]] = {
            statement: []
            for statement in (
                statements.delete_jobs,
                statements.delete_payloads,
                statements.outputs.delete,
                statements.move_jobs,
                statements.update_jobs,
                statements.end_jobs,
                statements.update_groups,
                statements.count_groups,
                statements.report_jobs,
                statements.move_changes,
                statements.insert_jobs,
                statements.insert_changes,
                statements.insert_payloads,
                statements.replace_payloads,
                statements.insert_attempts,
                statements.replace_assets,
                statements.insert_assets,
                statements.outputs.insert,
                statements.outputs.cut,
            )
        }
        latest = self._latest(after)
        histories = self._histories(after)
        outcomes = {
            each.job.id: each.payloads for _, each in self._more if each.payloads.outcome_bytes
        }
        for job_id, (job, seq) in latest.items():
            before = self._loaded.get(job_id)
            history = histories.get(job_id, NO_HISTORY)
            outcome = outcomes.get(job_id, NO_PAYLOADS)
            owner: str | None = job.user_id
            if before is None:
                rows[statements.insert_jobs].append(job_rows.row(job, seq, history))
            elif job_id in self._deleted and before.job.updates == job.updates:
                rows[statements.delete_jobs].append((job_id, *deletion_rows.row(job, seq, history)))
            elif is_report(before.job, job, self._now):
                rows[statements.report_jobs].append((job_id, *report_rows.row(job, seq)))
                owner = None if job.phase is Phase.HELD else job.user_id  # see tables.changes
            else:
                update, columns = self._update(before.job, job)
                rows[update].append((job_id, *columns.row(job, seq, history, outcome)))
            if seq is None:
                continue
            if before is None or was_just_started(before.job):  # a start keeps its row in the feed
                rows[statements.insert_changes].append((seq, job_id, owner))
            else:
                rows[statements.move_changes].append((before.seq, seq, owner))
        for place, decision in self._more:
            job, seq = decision.job, NewSeq(after + place)
            if decision.deleted:
                rows[statements.insert_changes].append((seq, job.id, job.user_id))
                rows[statements.delete_payloads].append((job.id,))
                if job.output_streams:
                    rows[statements.outputs.delete].append((job.id,))
                continue
            if was_just_started(job) and seq != latest[job.id][1]:
                rows[statements.insert_changes].append((seq, job.id, job.user_id))
            ended = () if decision.ended is None else (decision.ended,)
            rows[statements.insert_attempts] += map(attempt_row, ended)
        new_assets, updated_assets = self._assets()
        # One statement, as the parts of one have no order, with the names that become free first.
        write = statements.replace_assets if updated_assets else statements.insert_assets
        rows[write] += map(asset_row, (*updated_assets, *new_assets))
        # Of a deleted job nothing is inserted: the parts of one statement do not see each other.
        rows[statements.outputs.insert] += [
            (piece.job_id, piece.stream, piece.start, piece.attempt, piece.number, piece.data)
            for piece in self._outputs
            if piece.job_id not in self._deleted
        ]
        rows[statements.outputs.cut] += [(cut.job_id, cut.stream, cut.before) for cut in self._cuts]
        rows[statements.insert_payloads] += self._payload_rows(PARAMETERS, "parameters")
        rows[statements.replace_payloads] += self._payload_rows(CHECKPOINT, "checkpoint")
        return [(statement, values) for statement, values in rows.items() if values]


def _is_update(decision: Decision) -> bool:
    """Return whether a decision that changes its job updates it."""
    job = decision.job
    return job.status is JobStatus.QUEUED and job.version > 1 and job.children is None
