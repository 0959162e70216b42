"""Readers that hop between servers, while jobs come and go and are deleted, by chance.

The servers' change buffers are small and at different cursors. They are filled by the server's
own commits and by pages of the table, not by the commits of other servers.
"""

import random

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Cancel, ChangeStatus, Delete, Report
from jobledger_server.domain.job import Job, JobStatus
from jobledger_server.domain.state_machine import TERMINAL, Decision
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Change
from jobledger_server.tuning import Tuning
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.feed_reader import CHANGE_BYTES, FeedReader
from jobledger_server.watch.feed_watch import Cursor, FeedWatch, Selection
from jobledger_server.watch.hub import WatchHub
from tests.support.seed import SEED
from tests.support.store_writer import append, creation, step

ADA = Selection(user_id="ada")


class Server:
    """As far as watchers go. It may hear of its own commits late, as a busy one does."""

    def __init__(self, store: SqlStore, rng: random.Random) -> None:
        tuning = Tuning(
            buffered_changes=rng.randint(2, 20),
            feed_page=rng.randint(1, 6),
            feed_message_bytes=rng.randint(1, 6) * 2 * CHANGE_BYTES,
        )
        buffer = ChangeBuffer(0, tuning)
        self.hub = WatchHub(buffer, lambda: None, max_watches=1)
        self.feed = FeedReader(store, buffer, tuning)
        self._store = store
        self._commits: list[list[Change]] = []

    def committed(self, changes: list[Change]) -> None:
        self._commits.append(changes)

    def publish(self) -> None:
        for changes in self._commits:
            self.hub.publish(changes)
        self._commits.clear()

    async def poll(self, limit: int) -> None:
        """Read as the tail does, up to the first commit that the hub has already."""
        head = (await self._store.feed_head()).seq
        until = min(head, self.hub.gap_end or head)
        self.hub.deliver(await self._store.changes_after(self.hub.seq, limit=limit, until=until))


class Work:
    """Takes one step after the other with jobs of two owners."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._jobs: list[Job] = []

    def decide(self) -> list[Decision]:
        """Return a change, or two that are committed together."""
        if len(self._jobs) < 2 or self._rng.random() < 0.15:
            decision = creation(self._rng.choice(["ada", "ada", "bob"]))
            self._jobs.append(decision.job)
            return [decision]
        job = self._jobs.pop(self._rng.randrange(len(self._jobs)))
        decision = step(job, self._command(job))
        if not decision.deleted:
            self._jobs.append(decision.job)
        return [decision.via, decision] if decision.via else [decision]

    def _command(self, job: Job) -> object:
        if job.status in TERMINAL:
            return Delete(job_id=job.id, user_id=job.user_id)
        if job.status is JobStatus.QUEUED:
            if self._rng.random() < 0.2:
                return Cancel(job_id=job.id, user_id=job.user_id, reason="")
            return ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING)
        if self._rng.random() < 0.5:
            return Report(job_id=job.id, progress=50)
        return ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED)


class Reader:
    """Resumes anywhere after what it took; checks that each transition is sent once, in time."""

    def __init__(self) -> None:
        self.cursor = Cursor(0)
        self.gone: set[str] = set()
        self.steps: dict[str, list[int]] = {}
        self._versions: dict[str, int] = {}

    async def read(self, server: Server, rng: random.Random) -> None:
        watch = FeedWatch(server.feed, ADA, self.cursor, SERVICE)
        with server.hub.subscribe_to_feed(watch):
            for _ in range(rng.randint(1, 3)):
                update = await watch.next_update(0.0)
                if update is None:
                    self.cursor = watch.cursor
                    return
                for change in update.changes:
                    self._take(change)
                self.cursor = watch.cursor

    def _take(self, change: Change) -> None:
        job = change.job
        assert job.id not in self.gone
        assert job.version > self._versions.get(job.id, 0)
        self._versions[job.id] = job.version
        steps = self.steps.setdefault(job.id, [])
        if change.deleted:
            self.gone.add(job.id)
            assert len(steps) == 2
            return
        steps += [taken.version for taken in change.transitions]
        start = [] if job.status is JobStatus.QUEUED else [2]
        assert steps == ([*start, job.version] if job.status in TERMINAL else start)


async def test_a_reader_that_changes_servers_gets_every_transition_once(store: SqlStore) -> None:
    rng = random.Random(SEED)
    servers = [Server(store, rng) for _ in range(3)]
    readers = [Reader() for _ in range(4)]
    work = Work(rng)
    for _ in range(80):
        for _ in range(rng.choice([1, 1, 5])):
            rng.choice(servers).committed(await append(store, *work.decide()))
        for server in servers:
            if rng.random() < 0.5:
                server.publish()
            if rng.random() < 0.3:
                await server.poll(rng.randint(1, 10))
        for reader in readers:
            if rng.random() < 0.4:
                await reader.read(rng.choice(servers), rng)
    head = (await store.feed_head()).seq
    for reader in readers:
        while reader.cursor.seq < head:
            server = rng.choice(servers)
            await server.poll(100)
            await reader.read(server, rng)
    everything = (await store.changes_after(0, limit=1000, user_id="ada")).changes
    last: dict[str, list[int]] = {}
    for change in everything:
        versions = [each.version for each in change.transitions]
        last[change.job.id] = versions or last.get(change.job.id, [])
    for reader in readers:
        assert reader.gone == {change.job.id for change in everything if change.deleted}
        assert {job: steps[-1:] for job, steps in reader.steps.items()} == last
