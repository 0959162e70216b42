"""A transaction that writes: what a batch loads, and what it writes."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from jobledger_server.domain.decisions import Created
from jobledger_server.domain.job import (
    NO_PAYLOADS,
    Asset,
    AssetId,
    Instant,
    Job,
    JobId,
    JobStatus,
    Payload,
    Payloads,
    is_id,
)
from jobledger_server.domain.queues import EndedReasons, KeyState, Tally, queue_id
from jobledger_server.domain.state_machine import Decision, was_just_started
from jobledger_server.sql.driver import Driver, Prepared, Writes, WriteStatement
from jobledger_server.sql.history import NO_HISTORY, with_deletion, with_transition
from jobledger_server.sql.job_cache import JobCache, WriteId
from jobledger_server.sql.rows import (
    CHECKPOINT,
    PARAMETERS,
    Row,
    asset_from_row,
    asset_row,
    attempt_row,
    change_from_row,
    deadline_row,
    deleted_row,
    job_from_row,
    job_rows,
    last_rows,
    mutable_rows,
    only_renewed,
    only_reported,
    phase_row,
    ready_in_order,
    renewal_row,
    report_rows,
)
from jobledger_server.sql.statements import Statements, bind_ids
from jobledger_server.store import BlockedType, Change, Claimable, StoredJob


class SqlTransaction:
    """See `store.Transaction`."""

    def __init__(
        self,
        driver: Driver,
        statements: Statements,
        cache: JobCache,
        reasons: EndedReasons,
        *,
        blocked_types: int,
    ) -> None:
        self._blocked_types = blocked_types
        self._reasons = reasons
        self._driver = driver
        self._statements = statements
        self._dialect = statements.dialect
        self._cache = cache
        self._loaded: dict[JobId, Change] = {}
        self._vtimes: dict[int, int] = {}  # of the queues that jobs are claimed from
        self._written: list[Change] = []
        self._write_id: WriteId | None = None

    async def now(self) -> Instant:
        return await self._driver.now()

    async def load_jobs(self, ids: Collection[JobId]) -> dict[JobId, Job]:
        missing = dict.fromkeys(ids)
        known = self._cache.find(missing)
        # If not all are cached, one statement reads all, to lock them in the order of their ids.
        if known and len(known) == len(missing):
            write_ids = {job_id: write_id for job_id, (_, write_id) in known.items()}
            same = await self._driver.unchanged(write_ids)
            self._loaded.update((job_id, known[job_id][0]) for job_id in same)
            for job_id in same:
                del missing[job_id]
        if missing:
            bound = bind_ids(self._dialect, "ids", missing)
            rows = await self._fetch(self._statements.lock_jobs, bound)
            self._loaded.update((change.job.id, change) for change in map(change_from_row, rows))
        return {job_id: change.job for job_id, change in self._loaded.items()}

    async def load_claimed(self, ids: Collection[JobId]) -> dict[JobId, StoredJob]:
        bound = bind_ids(self._dialect, "ids", ids)
        rows = await self._fetch(self._statements.lock_claimed, bound)
        if rows and self._driver.time is None:
            self._driver.time = Instant(rows[0][-1])
        claimed: dict[JobId, StoredJob] = {}
        for *row, parameters, checkpoint, vtime, _ in rows:
            change = change_from_row(row)
            self._vtimes[queue_id(change.job)] = vtime or 0
            self._loaded[change.job.id] = change
            payloads = Payloads(parameters, checkpoint)
            claimed[change.job.id] = StoredJob(change.job, payloads=payloads)
        return claimed

    async def find_created(
        self, requests: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], Created]:
        bound = self._dialect.bind_tuples("requests", requests)
        rows = await self._fetch(self._statements.find_created, bound)
        found = [(job_from_row(row), parameters) for *row, parameters in rows]
        return {(job.user_id, job.request_id): (job, parameters) for job, parameters in found}

    async def find_active(
        self, keys: Collection[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], Job]:
        bound = self._dialect.bind_tuples("keys", keys)
        found = map(job_from_row, await self._fetch(self._statements.find_active, bound))
        return {(job.user_id, job.job_type, job.unique_key): job for job in found}

    async def lock_keys(self, keys: Collection[str]) -> dict[str, KeyState]:
        rows = await self._driver.fetch(*self._dialect.lock_keys(keys))
        if rows and self._driver.time is None:
            self._driver.time = Instant(rows[0][-1])
        return {
            key: KeyState(running, most, bool(paused)) for key, running, most, paused, _ in rows
        }

    async def find_repeats(self, origins: Collection[JobId]) -> dict[JobId, Job]:
        bound = bind_ids(self._dialect, "origins", origins)
        rows = await self._fetch(self._statements.find_repeats, bound)
        found = map(job_from_row, rows)
        return {job.origin_job_id: job for job in found if job.origin_job_id is not None}

    async def find_linked(
        self, requests: Collection[tuple[JobId, str]]
    ) -> dict[tuple[JobId, str], Asset]:
        possible = [pair for pair in requests if is_id(pair[0])]
        if not possible:
            return {}
        parameters = self._dialect.bind_tuples("requests", possible)
        rows = await self._fetch(self._statements.find_linked, parameters)
        return {(asset.job_id, asset.request_id): asset for asset in map(asset_from_row, rows)}

    async def find_named(
        self, names: Collection[tuple[JobId, str]]
    ) -> dict[tuple[JobId, str], Asset]:
        rows = await self._fetch(
            self._statements.find_named, self._dialect.bind_tuples("names", names)
        )
        return {(asset.job_id, asset.link.name): asset for asset in map(asset_from_row, rows)}

    async def find_ready(self, queues: Sequence[int]) -> list[Claimable]:
        statement, values = self._dialect.find_ready(Counter(queues), lock=True)
        return ready_in_order(queues, await self._driver.fetch(statement, values))

    async def find_blocked_types(self, key: str, *, ready: int) -> list[BlockedType]:
        bound = {"key": key, "ready": ready, "count": self._blocked_types}
        rows = await self._fetch(self._statements.blocking.blocked_types, bound)
        return [BlockedType(*row) for row in rows]

    async def find_blocked(self, key: str, job_type: str, *, limit: int) -> list[Job]:
        bound = {"key": key, "job_type": job_type, "count": limit}
        rows = await self._fetch(self._statements.blocking.blocked, bound)
        changes = [change_from_row(row) for row in rows]
        self._loaded.update((change.job.id, change) for change in changes)
        return [change.job for change in changes]

    async def find_due(self, *, limit: int) -> list[Job]:
        rows = await self._fetch(self._statements.blocking.due, {"count": limit})
        if rows and self._driver.time is None:
            self._driver.time = Instant(rows[0][-1])
        changes = [change_from_row(row) for *row, _ in rows]
        self._loaded.update((change.job.id, change) for change in changes)
        return [change.job for change in changes]

    async def clear_recheck(self, key: str, *, unblocked: bool) -> None:
        statements = self._statements.blocking
        clear = statements.clear_recheck_if_unblocked if unblocked else statements.clear_recheck
        await self._fetch(clear, {"wanted": key})

    async def append(
        self,
        decisions: Sequence[Decision],
        *,
        config_version: int | None = None,
        settled: Collection[str] = (),
        last: bool = False,
    ) -> list[Change]:
        tally = _tally(decisions, self._loaded, Tally(self._vtimes, self._reasons))
        batch = _Batch(decisions, self._loaded, tally, settled, await self.now())

        def writes(after: int) -> Writes:
            return batch.writes(self._statements, after=after)

        seq, write_id = await self._driver.append(
            batch.count,
            writes,
            counted=batch.counted,
            updates_first=batch.frees_keys,
            new=batch.new,
            config_version=config_version,
            last=last,
        )
        self._write_id = write_id
        before = seq - batch.count
        changes = batch.changes(after=before)
        made = {change.job.id: change for change in changes}
        for job, seq in batch.latest(after=before).values():
            change = made.get(job.id)
            self._written.append(change if change and change.job is job else Change(job, seq))
        return changes

    def committed(self) -> None:
        """Cache the running jobs that were written, as their rows hold them now."""
        if self._write_id is None:
            return
        for change in self._written:
            if change.job.status is JobStatus.PROCESSING:
                self._cache.put(change, self._write_id)
            else:
                self._cache.discard(change.job.id)

    async def _fetch(
        self, statement: Prepared, parameters: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]]:
        return await self._driver.fetch(statement.text, statement.values(parameters))


class _Batch:
    """The rows that a number of decisions write.

    A job that several decisions changed is written once, as the last one left it, with each
    transition.

    Args:
        decisions: Each changes or renews its job.
        loaded: The latest changes of those jobs that existed before.
        tally: What they do to the counters.
        settled: The keys whose free slots they give to blocked jobs.
        now: The database server's time.
    """

    def __init__(
        self,
        decisions: Sequence[Decision],
        loaded: Mapping[JobId, Change],
        tally: Tally,
        settled: Collection[str],
        now: Instant,
    ) -> None:
        self._decisions = decisions
        self._changed = [decision for decision in decisions if decision.changed]
        self._loaded = loaded
        self._now = now
        self.count = len(self._changed)
        """How many sequence numbers the decisions take."""
        self.deleted = {decision.job.id for decision in decisions if decision.deleted}
        self.new = sum(decision.job.version == 1 for decision in self._changed)
        """How many jobs are created."""
        self._tally, self._settled = tally, settled
        self.counted = bool(self._tally.queues)
        """Whether counters change."""
        # A creation may use the request id of a deleted job, or the unique key of a finished one.
        self.frees_keys = bool(self.deleted) or any(
            each.job.unique_key and each.job.phase is None for each in decisions
        )
        """Whether a creation may use what another decision frees."""

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

    def latest(self, *, after: int) -> dict[JobId, tuple[Job, int]]:
        """Return each job as the last of its decisions left it, and where its latest change is.

        A deleted job is as it was before, without its request id, which is how it is stored.
        """
        latest: dict[JobId, tuple[Job, int]] = {}
        seq = after
        for decision in self._decisions:
            job = decision.job
            seq += decision.changed
            if decision.changed and not decision.deleted:
                latest[job.id] = job, seq
                continue
            if job.id in latest:
                previous, at = latest[job.id]
            else:
                previous, at = self._loaded[job.id].job, self._loaded[job.id].seq
            latest[job.id] = replace(previous, request_id="") if decision.deleted else job, at
        return latest

    def _histories(self, after: int) -> dict[JobId, Sequence[Any]]:
        """Return the HISTORY_COLUMNS of the jobs that make transitions or are deleted."""
        histories: dict[JobId, Sequence[Any]] = {}
        for seq, decision in enumerate(self._changed, start=after + 1):
            job = decision.job
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
            payload = getattr(decision.payloads, name)
            if payload is not None and decision.job.id not in self.deleted:
                latest[decision.job.id] = payload
        return [(job_id, kind, payload) for job_id, payload in latest.items()]

    def _assets(self) -> tuple[Collection[Asset], Collection[Asset]]:
        """Return the new assets, and the stored ones that change, as they are in the end."""
        new: dict[AssetId, Asset] = {}
        updated: dict[AssetId, Asset] = {}
        for decision in self._changed:
            for asset in decision.updated:
                (new if asset.id in new else updated)[asset.id] = asset
            new.update((asset.id, asset) for asset in decision.assets)
        return new.values(), updated.values()

    def writes(self, statements: Statements, *, after: int) -> Writes:
        """Return the statements with their rows, at the sequence numbers after this one."""
        rows: dict[WriteStatement, list[Row]] = {
            statement: []
            for statement in (
                statements.delete_jobs,
                statements.change_and_delete_jobs,
                statements.delete_payloads,
                statements.update_jobs,
                statements.report_jobs,
                statements.renew_jobs,
                statements.set_deadlines,
                statements.set_phases,
                statements.move_changes,
                statements.insert_jobs,
                statements.insert_changes,
                statements.insert_payloads,
                statements.replace_payloads,
                statements.insert_attempts,
                statements.replace_assets,
                statements.insert_assets,
            )
        }
        latest = self.latest(after=after)
        histories = self._histories(after)
        outcomes = {
            each.job.id: each.payloads for each in self._changed if each.payloads.outcome_bytes
        }
        for job_id, (job, seq) in latest.items():
            before = self._loaded.get(job_id)
            history = histories.get(job_id, NO_HISTORY)
            if before is None:
                rows[statements.insert_jobs].append(job_rows.row(job, seq, history))
                rows[statements.insert_changes].append((seq, job_id, job.user_id))
                continue
            if job.version != before.job.version:
                if job_id in self.deleted:
                    rows[statements.change_and_delete_jobs].append(
                        (job_id, *last_rows.row(job, seq, history))
                    )
                elif only_reported(before.job, job):
                    rows[statements.report_jobs].append((job_id, *report_rows.row(job, seq)))
                else:
                    outcome = outcomes.get(job_id, NO_PAYLOADS)
                    rows[statements.update_jobs].append(
                        (job_id, *mutable_rows.row(job, seq, history, outcome))
                    )
                if was_just_started(before.job):  # the row in the feed of a start stays there
                    rows[statements.insert_changes].append((seq, job_id, job.user_id))
                else:
                    rows[statements.move_changes].append((before.seq, seq))
            elif job_id in self.deleted:
                rows[statements.delete_jobs].append(deleted_row(job_id, history))
            elif job.phase is not before.job.phase:
                rows[statements.set_phases].append(phase_row(job))
            else:
                statement, row = _renewal(statements, before, job, self._now)
                rows[statement].append(row)
        for seq, decision in enumerate(self._changed, start=after + 1):
            job = decision.job
            if decision.deleted:
                rows[statements.insert_changes].append((seq, job.id, job.user_id))
                rows[statements.delete_payloads].append((job.id,))
                continue
            if was_just_started(job) and seq != latest[job.id][1]:
                rows[statements.insert_changes].append((seq, job.id, job.user_id))
            ended = () if decision.ended is None else (decision.ended,)
            rows[statements.insert_attempts] += map(attempt_row, ended)
        new_assets, updated_assets = self._assets()
        # One statement, as the parts of one have no order, with the names that become free first.
        write = statements.replace_assets if updated_assets else statements.insert_assets
        rows[write] += map(asset_row, (*updated_assets, *new_assets))
        rows[statements.insert_payloads] += self._payload_rows(PARAMETERS, "parameters")
        rows[statements.replace_payloads] += self._payload_rows(CHECKPOINT, "checkpoint")
        written = [(statement, values) for statement, values in rows.items() if values]
        return [*written, *statements.counting.rows(self._tally, self._settled)]


def _renewal(
    statements: Statements, before: Change, job: Job, now: Instant
) -> tuple[WriteStatement, Row]:
    """Return the statement that renews a job's lease, with its row."""
    if not only_renewed(before.job, job, now):
        return statements.set_deadlines, deadline_row(job)
    return statements.renew_jobs, renewal_row(job)


def _tally(decisions: Sequence[Decision], loaded: Mapping[JobId, Change], tally: Tally) -> Tally:
    """Count what the decisions change, one after the other."""
    jobs: dict[JobId, Job] = {}
    for decision in decisions:
        job = decision.job
        before = jobs.get(job.id)
        if before is None and job.id in loaded:
            before = loaded[job.id].job
        tally.add(before, job)
        jobs[job.id] = job
    return tally
