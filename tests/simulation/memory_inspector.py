"""Looks into a world's store in memory during a run, as the checker's inspector does into SQL."""

import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager

from jobledger_server.domain.job import Job, JobId, Phase
from jobledger_server.domain.state_machine import due_time
from jobledger_server.domain.type_defaults import FIELDS, NO_DEFAULTS
from jobledger_world.memory.rows import ACTIVE, SCHEDULED, Row, with_key
from jobledger_world.memory.tables import Tables
from jobledger_world.memory.waiting import key_state
from tests.checker.history import History, Recount, Share, Start, Unblocked
from tests.checker.inspector import looking_often
from tests.support.memory_invariants import violations


class MemoryInspector:
    """Looks into tables, and writes down what it sees."""

    def __init__(self, tables: Tables, history: History) -> None:
        self._tables, self._history = tables, history

    async def look(self) -> None:
        """Recount once."""
        tables = self._tables
        wrong = violations(tables)
        active = Counter(
            (job.user_id, job.job_type, job.unique_key)
            for job in (row.job for row in tables.in_group(ACTIVE))
            if job.unique_key
        )
        due = min((due_time(row.job) or 0 for row in tables.in_group(SCHEDULED)), default=0)
        self._history.recounts.append(
            Recount(
                time.monotonic(),
                tuple(what for what in wrong if "free slot" not in what),
                tuple(what for what in wrong if "free slot" in what),
                tuple(f"{key}: {count}" for key, count in active.items() if count > 1),
                self._shares(),
                time.time() - due / 1e6 if due else 0.0,
                self._overfull(),
            )
        )

    def _overfull(self) -> tuple[str, ...]:
        stored: Counter[JobId] = Counter()
        for (job_id, _), pieces in self._tables.outputs.items():
            stored[job_id] += sum(len(piece.data) for piece in pieces[1:])
        most = self._history.most_output
        return tuple(f"{job_id}: {size}" for job_id, size in stored.items() if size > most)

    def _shares(self) -> tuple[Share, ...]:
        ahead: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for (job_type, priority, _), queue in self._tables.queues.items():
            name = job_type, priority
            if queue.phases[Phase.READY] and name in self._tables.levels:
                ahead[name].append(queue.vtime - self._tables.levels[name].vtime)
        return tuple(Share(name, min(each), max(each)) for name, each in ahead.items())

    def see(self, changes: Sequence[tuple[Row | None, Row]]) -> None:
        """Write down the starts of a commit, and what is wrong with each, and with creations."""
        written = {after.job.id for _, after in changes}
        for before, after in changes:
            if before is None:
                self._see_creation(after.job)
                continue
            if (before.job.phase, after.job.phase) == (Phase.BLOCKED, Phase.READY):
                self._see_unblocked(after.job, written)
            if after.job.phase is not Phase.HELD:
                continue
            if before.job.phase is not Phase.HELD or before.job.attempt < after.job.attempt:
                wrong = next(self._wrong(after.job), "")
                due, at = due_time(before.job) or 0, after.job.attempt_time or 0
                start = Start(after.job.id, after.job.concurrency_key, wrong, due, at)
                self._history.starts.append(start)

    def _see_creation(self, job: Job) -> None:
        """Write down whether a new job lacks a default that its type has in this commit."""
        defaults = self._tables.defaults.get(job.job_type, NO_DEFAULTS)
        for part, names in FIELDS.items():
            for name in names:
                default, value = getattr(defaults, name), getattr(job, name)
                silent = part & job.silent and job.origin_job_id is None
                if silent and default not in (None, value):
                    what = f"{job.id} of {job.job_type} has the {name} {value}, not {default}"
                    self._history.undefaulted.append(what)

    def _see_unblocked(self, job: Job, written: Collection[JobId]) -> None:
        """Write down which priority stayed blocked, of jobs that the commit did not write."""
        blocked = self._tables.in_group(with_key(job.concurrency_key, Phase.BLOCKED))
        left = [row.job for row in blocked if row.job.id not in written]
        highest = max((each.priority for each in left if each.job_type == job.job_type), default=-1)
        if highest >= 0:
            self._history.unblocked.append(Unblocked(job.id, job.priority, highest))

    def _wrong(self, started: Job) -> Iterator[str]:
        tables, key = self._tables, started.concurrency_key
        if started.job_type in tables.paused_types:
            yield "its type is paused"
        if key:
            state = key_state(tables, key)
            if state.paused:
                yield "its key is paused"
            running = len(tables.members(with_key(key, Phase.HELD)))
            if state.max_running is not None and running > state.max_running:
                yield "its key is full"


@asynccontextmanager
async def inspecting_memory(tables: Tables, history: History) -> AsyncIterator[None]:
    """Look into the tables again and again for as long as the block lasts."""
    inspector = MemoryInspector(tables, history)
    tables.written = inspector.see
    async with looking_often(inspector.look):
        yield
