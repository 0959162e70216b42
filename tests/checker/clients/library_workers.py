"""Workers of the Python library, whose handlers use all that it has to offer."""

import asyncio
import itertools
import random
from dataclasses import dataclass
from typing import Any

from jobledger import AsyncClient
from jobledger.core.models import Asset
from jobledger.errors import JobledgerError
from jobledger.worker import ClaimedJob, Completed, Failed, Outcome, Partial, Release, Worker
from jobledger.worker.session.job_updates import INTERVAL
from tests.checker.clients.board import TYPES, Board, pause
from tests.checker.clients.observed_work import ObservedChannel
from tests.checker.clients.workers import CHECKPOINTS
from tests.checker.history import History

SLOTS = 8

TICK_SECONDS = 0.05
"""Handlers report at the same moments, so that a message has reports of several jobs."""

REPEATED = (0, 0, 1, 3)
"""How often a report may be repeated, which has no news then."""

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

    def __post_init__(self) -> None:
        self._outcomes = itertools.cycle(self.rng.sample(OUTCOMES, len(OUTCOMES)))
        self._marks = (f"{self.name}-{number}" for number in itertools.count())

    async def run(self) -> None:
        """Work until there is nothing more to do."""
        observed: Any = ObservedChannel(self.channel, self.rng, self.board, self.history)
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
        await self._report(job)
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

    async def _report(self, job: ClaimedJob) -> None:
        """Report progress, some of it several times, and with checkpoints."""
        for percent in sorted(self.rng.sample(range(1, 100), self.rng.randint(2, 6))):
            await _tick()
            mark = next(self._marks)
            checkpoint = {"mark": mark} if self.rng.random() < CHECKPOINTS else None
            repeated = self.rng.choice(REPEATED)
            await job.progress(percent, mark, checkpoint=checkpoint, wait=repeated > 0)
            for _ in range(repeated):
                await _tick()
                await job.progress(percent, mark, wait=True)
            if self.rng.random() < ASKED:
                await asyncio.sleep(INTERVAL)
                await job.progress()


async def _tick() -> None:
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(TICK_SECONDS - now % TICK_SECONDS)
