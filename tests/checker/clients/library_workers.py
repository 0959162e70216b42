"""Workers of the Python library, whose handlers use all that it has to offer."""

import asyncio
import itertools
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from jobledger import AsyncClient
from jobledger.core.models import Asset
from jobledger.errors import JobledgerError
from jobledger.worker import ClaimedJob, Completed, Failed, Outcome, Partial, Release, Worker
from jobledger.worker.session.job_output import MAX_APPEND
from jobledger.worker.session.job_updates import INTERVAL
from tests.checker.clients.board import TYPES, Board, pause
from tests.checker.clients.observed_work import ObservedChannel
from tests.checker.clients.output_writers import STREAMS, OutputWriter
from tests.checker.clients.workers import CHECKPOINTS, WRITTEN
from tests.checker.history import Append, History

SLOTS = 8

TICK_SECONDS = 0.05
"""Handlers report at the same moments, so that a message has reports of several jobs."""

REPEATED = (0, 0, 1, 3)
"""How often a report may be repeated, which has no news then."""

LOG = "log"
"""The stream of `job.log`."""

AWAITED = 0.2
"""How many of the writes wait until they are committed."""

ASKED = 0.1
"""How many of the reports are followed by a question whether to go on."""

LINKED = 0.4
"""How many of the jobs have an asset linked before they end."""

OUTCOMES = ("completed",) * 4 + ("partial", "failed", "retried", "retried", "released", "released")
"""Of each ten handlers: in a short run some would be left out by chance."""

STAY_SECONDS = (2.0, 15.0)
"""How long a worker works before another one takes its place, as in an upgrade."""

PAUSES = (None, 0.0, 0.5, 1.0)
"""Seconds until a released or failed job may be claimed again."""


@dataclass
class LibraryWorker:
    """One worker after the other, over one channel."""

    name: str
    channel: Any
    rng: random.Random
    board: Board
    history: History
    lease: int
    token: str | None
    written: float
    pieces: tuple[int, ...]

    def __post_init__(self) -> None:
        self._outcomes = itertools.cycle(self.rng.sample(OUTCOMES, len(OUTCOMES)))
        self._marks = (f"{self.name}-{number}" for number in itertools.count())

    async def run(self) -> None:
        """Work until there is nothing more to do."""
        self._observed = ObservedChannel(self.channel, self.rng, self.board, self.history)
        observed: Any = self._observed
        try:
            while not self.board.work.is_set():
                client = AsyncClient(channel=observed, token=self.token)
                async with client, asyncio.TaskGroup() as group:
                    worker = Worker(
                        client, concurrency=SLOTS, lease=self.lease, worker_id=self.name
                    )
                    for job_type in TYPES:
                        worker.handler(job_type)(self._handle)
                    group.create_task(worker.run(signals=False))
                    await pause(self.board.work, self.rng.uniform(*STAY_SECONDS))
                    worker.stop(now=self.board.work.is_set() or self.rng.random() < 0.5)
        finally:
            observed.write_down_unanswered()

    async def _handle(self, job: ClaimedJob) -> Outcome:
        output = None
        if self.rng.random() < self.written:
            output = _Output(next(self._marks), job, self.rng, self.pieces, self._observed)
            self.board.written.append(self._observed.claimed(job.id, job.attempt))
        await self._report(job, output)
        outcome, after = next(self._outcomes), self.rng.choice(PAUSES)
        if outcome == "released":
            return Release(after)
        mark = next(self._marks)
        result = {"mark": mark}
        if outcome == "retried":
            return Failed(mark, "BUSY", result=result, retryable=True, retry_after=after)
        try:
            if self.rng.random() < LINKED:
                await job.add_asset("image/png", storage_path=f"{mark}-linked")
        except JobledgerError:  # no server has answered for as long as the lease lasts
            return Release()
        paths = [f"{mark}/{number}" for number in range(self.rng.randint(0, 3))]
        assets = [Asset("image/png", storage_path=path) for path in paths]
        if outcome == "failed":
            return Failed(mark, "NO_PAINT", details=result, result=result, assets=assets)
        if outcome == "partial":
            return Partial(result, "half of it", "NO_TIME", details=result, assets=assets)
        return Completed(result, assets)

    async def _report(self, job: ClaimedJob, output: "_Output | None") -> None:
        """Report progress, some of it several times, and with checkpoints; write between."""
        for percent in sorted(self.rng.sample(range(1, 100), self.rng.randint(2, 6))):
            await _tick()
            mark = next(self._marks)
            checkpoint = {"mark": mark} if self.rng.random() < CHECKPOINTS else None
            if output is not None and self.rng.random() < WRITTEN:
                await output.write()
            repeated = self.rng.choice(REPEATED)
            await job.progress(percent, mark, checkpoint=checkpoint, wait=repeated > 0)
            for _ in range(repeated):
                await _tick()
                await job.progress(percent, mark, wait=True)
            if self.rng.random() < ASKED:
                await asyncio.sleep(INTERVAL)
                await job.progress()
        if output is not None and self.rng.random() < WRITTEN:
            await output.write()  # at once before the end


class _Output:
    """Writes output of one attempt of a job.

    An append begins where a piece does, as the judge wants it: so much is not written to a stream
    that the worker would have to divide a piece.
    """

    def __init__(
        self,
        name: str,
        job: ClaimedJob,
        rng: random.Random,
        sizes: tuple[int, ...],
        observed: ObservedChannel,
    ) -> None:
        self._writer = OutputWriter(name, job, rng, sizes)
        self._job, self._rng, self._observed = job, rng, observed
        self._sizes: Counter[str] = Counter()

    async def write(self) -> None:
        """Write a few pieces."""
        for _ in range(self._rng.randint(1, 4)):
            piece = self._writer.piece()
            data = piece.data + b"\n" if piece.stream == LOG else piece.data
            self._sizes[piece.stream] += len(data)
            if self._sizes[piece.stream] > MAX_APPEND:
                return
            where = self._job.id, self._job.attempt, piece.stream
            self._observed.output.write(*where, data)
            try:
                await self._write(piece)
            except JobledgerError:  # it is committed or refused, and the job goes on
                continue
            except BaseException:
                self._observed.output.fail(*where)
                raise

    async def _write(self, piece: Append) -> None:
        """Write a piece in the way that a program writes to such a stream."""
        if piece.stream == LOG:
            await self._job.log(piece.data.decode())
            return
        wait = self._rng.random() < AWAITED
        if piece.stream:
            stream = self._job.output(piece.stream, content_type=STREAMS[piece.stream])
            await stream.write(piece.data, wait=wait)
        else:
            await self._job.write(piece.data, wait=wait)


async def _tick() -> None:
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(TICK_SECONDS - now % TICK_SECONDS)
