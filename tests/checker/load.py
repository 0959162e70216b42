"""The clients of a run, from their start until they know the final state of all jobs."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc

from tests.checker.clients.asking import OPTIONS, SLOW_READER, Connect, Options, Replicas
from tests.checker.clients.board import TYPES, USERS, Board
from tests.checker.clients.brief_jobs import run_brief_jobs
from tests.checker.clients.deliverers import Deliverer, own_webhooks
from tests.checker.clients.group_owners import own_groups
from tests.checker.clients.library_workers import LibraryWorker
from tests.checker.clients.operators import operate
from tests.checker.clients.output_readers import read_outputs
from tests.checker.clients.readers import look
from tests.checker.clients.records import any_active, read_all
from tests.checker.clients.refused import create_in_vain
from tests.checker.clients.stream_workers import StreamWorker
from tests.checker.clients.watchers import JobsWatcher, watch_jobs_one_by_one
from tests.checker.clients.workers import LONGEST_LEASE, JobWorker
from tests.checker.clients.writers import create_jobs, delete_jobs, repeat_jobs
from tests.checker.history import History, Watcher
from tests.checker.judge.permitted import token_of
from tests.checker.judge.watching_many import all_lines, check_newest
from tests.checker.timeline import Timeline

CHANGES_PER_JOB = 8
"""About: creation, claim, four reports, perhaps an asset, the end, perhaps a deletion."""

ALL_ENDED_SECONDS = 60.0
"""How long jobs may take to end after the last one was made: their deadlines see to it. A server
that is slow may take longer, by the load's patience."""

STALL_SECONDS = 0.5

MOST_BETWEEN_LOOKS = 5.0

MANY = (
    Watcher(name="all"),
    Watcher(name="all, slow"),
    *(Watcher(name=f"of {user}", user_id=user) for user in USERS[:2]),
    Watcher(name=f"of type {TYPES[0]}", job_types=frozenset({TYPES[0]})),
    Watcher(name=f"of {USERS[2]}, two types", user_id=USERS[2], job_types=frozenset(TYPES[:2])),
    Watcher(name="all, in full", full=True),
)

Work = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many clients there are, and how much they do.

    `rate` is in changes a second; `abandoned`, `released`, `deleted`, `cancelled` and `large` are
    shares of the jobs, `retried` of the attempts, which fail retryably, `deaths`
    of the messages after which a worker dies or freezes, `waits` of the jobs whose worker waits
    for a signal. Jobs are cancelled `cancelled_within` so many seconds of their creation; `brief`
    are clients that delete their jobs at once. `patience` is how many seconds, besides those that
    deadlines need, servers may take to end all jobs, and then watchers to hear of everything. These
    resume from an older cursor than their last in the share `go_back` of all cases,
    as if they had not stored that, and stay with a stream that works for a time within `stay`.
    `job_stay` is that time for half of the streams of watchers of one job.
    `start_over` is the share of their streams that begin without a cursor, `stalls` that of the
    messages after which a slow one reads no more for a while.
    `written` is the share of the attempts that write output, in pieces of so many bytes as one of
    `pieces`, and `output_readers` are clients that read it.
    `lease` is that of the workers with streams, in seconds. That of the others is no longer than
    five, for what these abandon waits for its end.
    """

    rate: float = 360.0
    writers: int = 8
    workers: int = 6
    stream_workers: int = 6
    library_workers: int = 2
    job_watchers: int = 30
    deliverers: int = 2
    group_owners: int = 2
    abandoned: float = 0.02
    released: float = 0.03
    retried: float = 0.08
    deleted: float = 0.25
    cancelled: float = 0.04
    cancelled_within: float = 0.3
    large: float = 0.0
    brief: int = 2
    deaths: float = 0.01
    waits: float = 0.3
    patience: float = 30.0
    go_back: float = 0.2
    stay: tuple[float, float] = (1.0, 8.0)
    job_stay: tuple[float, float] = (0.1, 2.0)
    start_over: float = 0.0
    stalls: float = 0.01
    lease: int = 5
    written: float = 0.4
    pieces: tuple[int, ...] = (48, 200, 1500, 30_000)
    output_readers: int = 12


class Load:
    """All clients of a run, and what they write down.

    `targets` are the addresses of the replicas, or of what stands before them. `access` says that
    the replicas have an access file with the rules of `permitted.py`.
    """

    def __init__(
        self,
        targets: Sequence[str],
        seed: int | str,
        size: Size,
        *,
        connect: Connect = grpc.aio.insecure_channel,
        access: bool = False,
    ) -> None:
        self._access = access
        self.history = History(lease=min(size.lease, LONGEST_LEASE))
        self._targets = targets
        self._seed = seed
        self._size = size
        self._connect_to = connect
        self._board = Board()
        self._connected: list[Replicas] = []
        self._channels: list[grpc.aio.Channel] = []

    def rng(self, name: str) -> random.Random:
        """Return a source of chance that depends on the seed and the name alone."""
        return random.Random(f"{self._seed} {name}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Create, work and watch during the block, then until all jobs have finished."""
        board, history = self._board, self.history
        history.load_began = time.monotonic()
        async with asyncio.TaskGroup() as clients:
            writing = [clients.create_task(work) for work in self._writers()]
            working = [clients.create_task(work) for work in self._workers()]
            watching = [clients.create_task(work) for work in self._watchers_of_one()]
            following = [clients.create_task(work) for work in self._watchers_of_many()]
            try:
                yield
                history.load_ended = time.monotonic()
                board.load.set()
                await asyncio.gather(*writing)
                reader = self._connect("reader")
                patience = self._size.patience
                await _until(lambda: _all_ended(reader), ALL_ENDED_SECONDS + patience)
                board.work.set()
                await asyncio.gather(*working)
                await read_all(reader, history)
                # The validators report what is not delivered by then.
                await asyncio.wait(watching, timeout=patience)
                timeline = Timeline(history)
                await _until(lambda: self._all_told(timeline), patience)
            finally:
                for task in (*writing, *working, *watching, *following):
                    task.cancel()
        for replicas in self._connected:
            await replicas.close()
        for channel in self._channels:
            await channel.close()

    def _connect(self, name: str, options: Options = ()) -> Replicas:
        rng = self.rng(f"{name}'s connections")
        history, connect = self.history, self._connect_to
        token = token_of(name) if self._access else ""
        self._connected.append(
            Replicas(
                self._targets,
                rng,
                history.refusals,
                history.answered,
                options,
                connect=connect,
                token=token,
            )
        )
        return self._connected[-1]

    def _client(
        self, name: str, options: Options = ()
    ) -> tuple[Replicas, random.Random, Board, History]:
        """Return what a client has: connections and chance of its own, and what all share."""
        return self._connect(name, options), self.rng(name), self._board, self.history

    def _writers(self) -> list[Work]:
        size, client = self._size, self._client
        rate = size.rate / CHANGES_PER_JOB / size.writers
        cancelled = size.cancelled, size.cancelled_within
        return [
            *(
                create_jobs(name, *client(name), rate, *cancelled, size.large)
                for name in _names("writer", size.writers)
            ),
            *(run_brief_jobs(name, *client(name)) for name in _names("brief", size.brief)),
            *(own_groups(name, *client(name)) for name in _names("groups", size.group_owners)),
            create_in_vain(*client("refused")),
            repeat_jobs(*client("repeater")),
            look(*client("reader-of-all")),
            operate(*client("operator")),
            own_webhooks(*client("webhooks")),
            *(
                Deliverer(name, *client(name)).run()
                for name in _names("deliverer", size.deliverers)
            ),
        ]

    def _workers(self) -> list[Work]:
        size, client = self._size, self._client
        workers = [
            JobWorker(
                name,
                *client(name),
                abandoned=size.abandoned,
                released=size.released,
                retried=size.retried,
                lease=self.history.lease,
                written=size.written,
                pieces=tuple(size.pieces),
            ).run()
            for name in _names("worker", size.workers)
        ]
        for name in _names("stream-worker", size.stream_workers):
            share = {"deaths": size.deaths, "waits": size.waits, "retried": size.retried}
            worker = StreamWorker(
                name,
                *client(name),
                **share,
                lease=size.lease,
                written=size.written,
                pieces=tuple(size.pieces),
            )
            workers.append(worker.run())
        for number, name in enumerate(_names("library-worker", size.library_workers)):
            target = self._targets[number % len(self._targets)]
            self._channels.append(channel := self._connect_to(target, OPTIONS))
            own = self.rng(name), self._board, self.history
            token = token_of(name) if self._access else None
            written = size.written, tuple(size.pieces)
            workers.append(LibraryWorker(name, channel, *own, size.lease, token, *written).run())
        return [*workers, delete_jobs(*client("deleter"), share=size.deleted)]

    def _watchers_of_one(self) -> list[Work]:
        # They share connections: each stream is short.
        shared = [self._connect(name) for name in _names("watchers", 3)]
        size = self._size
        clients = [
            *((watch_jobs_one_by_one, name) for name in _names("watcher", size.job_watchers)),
            *((read_outputs, name) for name in _names("output-reader", size.output_readers)),
        ]
        return [
            client(
                name,
                shared[n % 3],
                self.rng(name),
                self._board,
                self.history,
                size.go_back,
                size.job_stay,
            )
            for n, (client, name) in enumerate(clients)
        ]

    def _watchers_of_many(self) -> list[Work]:
        work, size = [], self._size
        for who in MANY:
            watcher = replace(who, streams=[])
            self.history.watchers.append(watcher)
            slow = "slow" in watcher.name
            connections, rng, board, _ = self._client(watcher.name, SLOW_READER if slow else ())
            following = JobsWatcher(
                watcher,
                connections,
                rng,
                board,
                STALL_SECONDS if slow else 0.0,
                stalls=size.stalls,
                go_back=size.go_back,
                start_over=size.start_over,
                stay=size.stay,
            )
            work.append(following.run())
        return work

    async def _all_told(self, timeline: Timeline) -> bool:
        records = list(self.history.records.values())
        return not any(
            next(check_newest(line, timeline, records), None)
            for line in all_lines(self.history)
            if line.last
        )


def _names(kind: str, count: int) -> list[str]:
    return [f"{kind}-{number}" for number in range(count)]


async def _all_ended(replicas: Replicas) -> bool:
    return not await any_active(replicas)


async def _until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Wait until a condition is true, for a limited time."""
    deadline, pause = time.monotonic() + seconds, 0.1
    while not await condition() and time.monotonic() < deadline:
        await asyncio.sleep(pause)
        pause = min(MOST_BETWEEN_LOOKS, 1.2 * pause)  # who lost something waits for long, in vain
