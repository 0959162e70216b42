"""A transaction that writes: what a batch loads, and what it writes."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from jobledger_server.domain.decisions import Created
from jobledger_server.domain.job import (
    Asset,
    Instant,
    Job,
    JobId,
    JobStatus,
    Payloads,
    Phase,
    is_id,
)
from jobledger_server.domain.output import (
    EMPTY,
    NO_TAILS,
    OutputCut,
    OutputPiece,
    OutputTail,
    Tails,
    after_append,
    after_cut,
    merged,
)
from jobledger_server.domain.queues import EndedReasons, KeyState, QueueName, Tally, queue_name
from jobledger_server.domain.state_machine import Decision
from jobledger_server.sql.batch import DecisionBatch
from jobledger_server.sql.driver import Driver, Prepared
from jobledger_server.sql.job_cache import JobCache, WriteId
from jobledger_server.sql.output_tails import OutputTails
from jobledger_server.sql.rows import (
    asset_from_row,
    change_from_row,
    job_from_row,
    ready_in_order,
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
        tails: OutputTails,
        *,
        blocked_types: int,
    ) -> None:
        self._blocked_types = blocked_types
        self._reasons = reasons
        self._driver = driver
        self._statements = statements
        self._dialect = statements.dialect
        self._cache = cache
        self._tails = tails
        self._outputs: dict[JobId, Tails] = {}  # loaded, and then as they are written
        self._loaded: dict[JobId, Change] = {}
        self._vtimes: dict[QueueName, int] = {}  # of the queues that jobs are claimed from
        self._written: list[Change] = []
        self._write_id: WriteId | None = None

    async def now(self) -> Instant:
        return await self._driver.now()

    async def load_jobs(self, ids: Collection[JobId], *, look: bool = True) -> dict[JobId, Job]:
        missing = dict.fromkeys(ids)
        known = self._cache.find(missing)
        # If not all are cached, one statement reads all, to lock them in the order of their ids.
        if known and len(known) == len(missing):
            write_ids = {job_id: write_id for job_id, (_, write_id) in known.items()}
            same = await self._driver.unchanged(write_ids, look=look)
            self._loaded.update((job_id, known[job_id][0]) for job_id in same)
            for job_id in same:
                del missing[job_id]
        if missing:
            # Somebody else may have appended to the output of a job that somebody else has written.
            self._tails.discard(missing)
            bound = bind_ids(self._dialect, "ids", missing)
            self._load(await self._fetch(self._statements.lock_jobs, bound))
        return {job_id: change.job for job_id, change in self._loaded.items()}

    async def load_claimed(self, ids: Collection[JobId]) -> dict[JobId, StoredJob]:
        bound = bind_ids(self._dialect, "ids", ids)
        rows = self._timed(await self._fetch(self._statements.lock_claimed, bound))
        claimed: dict[JobId, StoredJob] = {}
        for *row, parameters, checkpoint, vtime, _ in rows:
            change = change_from_row(row)
            if change.job.phase is Phase.READY:  # the id of an ended job may be another queue's
                self._vtimes[queue_name(change.job)] = vtime or 0
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

    async def load_outputs(self, jobs: Collection[Job]) -> dict[JobId, Tails]:
        missing = []
        for job in jobs:
            known = self._tails.find(job.id) if job.output_streams else NO_TAILS
            self._outputs[job.id] = NO_TAILS if known is None else known
            if known is None:
                missing += [(job.id, stream) for stream in job.output_streams]
        if missing:
            rows = await self._driver.fetch(*self._dialect.find_tails(missing))
            for job_id, stream, *fields in rows:
                self._outputs[job_id] = {**self._outputs[job_id], stream: OutputTail(*fields)}
        return dict(self._outputs)

    async def find_active(
        self, keys: Collection[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], Job]:
        bound = self._dialect.bind_tuples("keys", keys)
        found = map(job_from_row, await self._fetch(self._statements.find_active, bound))
        return {(job.user_id, job.job_type, job.unique_key): job for job in found}

    async def lock_keys(self, keys: Collection[str]) -> dict[str, KeyState]:
        rows = self._timed(await self._driver.fetch(*self._dialect.lock_keys(keys)))
        return {
            key: KeyState(running, most, bool(paused)) for key, running, most, paused, _ in rows
        }

    async def lock_groups(self, ids: Collection[JobId]) -> dict[JobId, Job]:
        found = self._load(await self._driver.fetch(*self._dialect.lock_groups(ids)))
        return {job.id: job for job in found}

    async def find_reruns(self, origins: Collection[JobId]) -> dict[JobId, Job]:
        bound = bind_ids(self._dialect, "origins", origins)
        rows = await self._fetch(self._statements.find_reruns, bound)
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

    async def find_ready(self, planned: Sequence[Claimable]) -> list[Claimable]:
        queues = [job.queue for job in planned]
        counts = Counter(queues)
        one = {job.queue: job.id for job in planned}
        statement, values = self._dialect.lock_ready(
            {job_id: counts[queue] for queue, job_id in one.items()}
        )
        return ready_in_order(queues, await self._driver.fetch(statement, values))

    async def find_blocked_types(self, key: str, *, ready: int) -> list[BlockedType]:
        bound = {"key": key, "ready": ready, "count": self._blocked_types}
        rows = await self._fetch(self._statements.blocking.blocked_types, bound)
        return [BlockedType(*row) for row in rows]

    async def find_blocked(self, key: str, job_type: str, *, limit: int) -> list[Job]:
        bound = {"key": key, "job_type": job_type, "count": limit}
        return self._load(await self._fetch(self._statements.blocking.blocked, bound))

    async def find_due(self, *, limit: int) -> list[Job]:
        return await self._find_first(self._statements.blocking.due, limit)

    async def find_overdue(self, *, limit: int) -> dict[JobId, Job]:
        found = await self._find_first(self._statements.blocking.overdue, limit)
        return {job.id: job for job in found}

    async def _find_first(self, statement: Prepared, limit: int) -> list[Job]:
        """Lock jobs whose time has come. The time follows each."""
        rows = self._timed(await self._fetch(statement, {"count": limit}))
        return self._load(row[:-1] for row in rows)

    def _load(self, rows: Iterable[Sequence[Any]]) -> list[Job]:
        """Return the jobs of these rows, which are locked, and keep their changes."""
        changes = [change_from_row(row) for row in rows]
        self._loaded.update((change.job.id, change) for change in changes)
        return [change.job for change in changes]

    def _timed(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Return the rows, and note the time with which each of them ends."""
        if rows and self._driver.time is None:
            self._driver.time = Instant(rows[0][-1])
        return rows

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
        cuts: Sequence[OutputCut] = (),
        last: bool = False,
    ) -> list[Change]:
        outputs = merged([each.output for each in decisions if each.output is not None])
        if outputs:
            decisions = [each for each in decisions if each.changed or each.renewed]
            cuts = [await self._located(cut) for cut in cuts]
            self._append_outputs(outputs, cuts)
        tally = _tally(decisions, self._loaded, Tally(self._vtimes, self._reasons))
        batch = DecisionBatch(
            self._statements,
            decisions,
            self._loaded,
            tally=tally,
            settled=settled,
            config_version=config_version,
            # What only appends to output depends on no time.
            now=await self.now() if decisions else Instant(0),
            outputs=outputs,
            cuts=cuts,
        )
        seq, self._write_id = await self._driver.append(batch, last=last)
        before = seq - batch.count
        changes = batch.changes(after=before)
        self._written = batch.written(changes, after=before)
        return changes

    def committed(self) -> None:
        """Cache the running jobs that were written, as their rows hold them now."""
        if self._write_id is None:
            return
        for job_id, tails in self._outputs.items():
            self._tails.put(job_id, tails)
        for change in self._written:
            if change.job.status is JobStatus.PROCESSING:
                self._cache.put(change, self._write_id)
            else:
                self._cache.discard(change.job.id)

    def failed(self) -> None:
        """Forget the streams of output that were loaded: others may have appended to them."""
        self._tails.discard(self._outputs)

    async def _located(self, cut: OutputCut) -> OutputCut:
        """Return a cut whose offset keeps only as many pieces as it says."""
        if cut.kept_pieces >= self._outputs[cut.job_id].get(cut.stream, EMPTY).pieces:
            return cut
        find = self._dialect.find_newest_pieces(cut.job_id, cut.stream, cut.kept_pieces)
        rows = await self._driver.fetch(*find)
        # There is no row where fewer are stored than the tail says, which counts at most.
        return replace(cut, before=max([cut.before, *(start for (start,) in rows)]))

    def _append_outputs(self, outputs: Sequence[OutputPiece], cuts: Sequence[OutputCut]) -> None:
        for piece in outputs:
            self._outputs[piece.job_id] = after_append(self._outputs[piece.job_id], piece)
        for cut in cuts:
            self._outputs[cut.job_id] = after_cut(self._outputs[cut.job_id], cut)

    async def _fetch(
        self, statement: Prepared, parameters: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]]:
        return await self._driver.fetch(statement.text, statement.values(parameters))


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
