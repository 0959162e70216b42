"""Clients that claim jobs and work on them: most to the end, some not."""

import asyncio
import itertools
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import asset_pb2, job_pb2
from jobledger.v1 import worker_service_pb2 as pb
from tests.checker.clients.asking import Answer, Replicas
from tests.checker.clients.board import TYPES, Board, pause
from tests.checker.clients.output_writers import OutputWriter, UnaryAppends
from tests.checker.clients.records import Unreadable, list_attempts
from tests.checker.clients.writers import marked
from tests.checker.facts import snapshot
from tests.checker.history import History, Operation, Outcome
from tests.checker.judge.writing import RETRYABLE

LONGEST_LEASE = 5
"""In seconds."""

WAIT_SECONDS = 0.3

NAMED = 0.7
"""Of the claims: those that say what their worker holds."""

LISTED = 0.05

LINKED = 0.15
"""How many of the reports are sent together with an asset, perhaps to another server."""

WRITTEN = 0.5
"""How many of the reports are sent together with output, if the attempt has some."""

UNNUMBERED = 0.05
"""How many of the attempts with output do not number their appends: each of these is sent once."""

TOO_LATE = 0.2
"""How many of the attempts with output append something after they have ended their job."""

CHECKPOINTS = 0.3
"""How many of the reports bring a checkpoint."""


def a_delay(rng: random.Random) -> Duration | None:
    """Return a delay of a release or a retry, or none, by chance."""
    return rng.choice((None, None, Duration(), Duration(nanos=500_000_000)))


@dataclass
class JobWorker:
    """One worker. Each job is worked on by a task of its own."""

    name: str
    replicas: Replicas
    rng: random.Random
    board: Board
    history: History
    abandoned: float
    released: float
    retried: float
    lease: int
    written: float
    pieces: tuple[int, ...]

    def __post_init__(self) -> None:
        self._appends = UnaryAppends(self.replicas, self.rng, self.history)
        self._abandoned_jobs: deque[pb.HeldJob] = deque(maxlen=1000)
        self._marks = (f"{self.name}-{number}" for number in itertools.count())

    async def run(self) -> None:
        """Work until there is nothing more to do."""
        while not self.board.work.is_set():
            request = pb.ClaimJobsRequest(
                worker_id=self.name,
                job_types=TYPES,
                max_jobs=3,
                lease_duration=Duration(seconds=self.lease),
                wait=Duration(nanos=int(WAIT_SECONDS * 1e9)),
            )
            # Jobs of an answer that was lost are released by the next claim that says what is
            # held, or come back when their leases expire. What it abandons it holds, too.
            if self.rng.random() < NAMED:
                request.holding.extend(self._abandoned_jobs)
                request.holds_none = not self._abandoned_jobs
            # One try, so that answers are lost.
            answer = await self.replicas.ask("ClaimJobs", request, patience=0, wait=WAIT_SECONDS)
            jobs = [] if answer.response is None else answer.response.jobs
            for job in jobs:
                self._record("ClaimJobs", answer, job.id, told=snapshot(job), changed=True)
            await asyncio.gather(*map(self._work, jobs))
            await pause(self.board.work, 0.0 if jobs else 0.02)

    async def _work(self, job: Any) -> None:
        chance = self.rng.random()
        writer = None
        if self.rng.random() < self.written:
            numbered = self.rng.random() >= UNNUMBERED
            writer = OutputWriter(next(self._marks), job, self.rng, self.pieces, numbered=numbered)
            self.board.written.append(snapshot(job))
        if job.attempt > 1 or self.rng.random() < LISTED:
            await self._list(job)
        for percent in sorted(self.rng.sample(range(1, 100), self.rng.randint(2, 6))):
            await asyncio.sleep(self.rng.uniform(0.01, 0.08))
            calls = [self._report(job, percent)]
            if self.rng.random() < LINKED:
                calls.append(self._link(job))
            if writer is not None and self.rng.random() < WRITTEN:
                calls.append(self._write(writer))
            if not all(await asyncio.gather(*calls)):
                return
        if chance < self.abandoned and not self.board.load.is_set():
            self._abandoned_jobs.append(pb.HeldJob(job_id=job.id, attempt=job.attempt))
            return
        if chance < self.abandoned + self.released:
            over = await self._release(job)
        elif self.rng.random() < self.retried:
            over = await self._fail(job)
        elif chance > 0.6 and not await self._link(job):
            return
        else:
            over = await self._end(job)
        if writer is not None and over and self.rng.random() < TOO_LATE:
            await self._appends.append(writer.piece(fenced=True))

    async def _write(self, writer: OutputWriter) -> bool:
        """Append a few pieces, one after the other."""
        for _ in range(self.rng.randint(1, 3)):
            append = writer.piece()
            if not await self._appends.append(append):
                if append.outcome is Outcome.REFUSED:
                    writer.give_up(append)
                break
        return True

    async def _list(self, job: Any) -> None:
        sent = time.monotonic()
        size = self.rng.choice((1, 1000))
        try:
            attempts = await list_attempts(self.replicas, job.id, job.user_id, size)
        except Unreadable:
            return
        self.history.operations.append(
            Operation(
                rpc="ListAttempts",
                sent=sent,
                answered=time.monotonic(),
                outcome=Outcome.ACKNOWLEDGED,
                job_id=job.id,
                attempt=job.attempt,
                attempts=attempts,
            )
        )

    async def _report(self, job: Any, percent: int) -> bool:
        mark = next(self._marks)
        checkpoint = self.rng.random() < CHECKPOINTS
        request = pb.UpdateProgressRequest(
            job_id=job.id,
            attempt=job.attempt,
            progress={
                "progress": percent,
                "progress_message": mark,
                "report_number": percent,  # it grows with each report
                "checkpoint": marked(mark) if checkpoint else None,
            },
        )
        answer = await self.replicas.ask("UpdateProgress", request)
        changed = answer.response is not None and answer.response.applied
        self._record(
            "UpdateProgress",
            answer,
            job.id,
            mark=mark,
            told=answer.told,
            changed=changed,
            attempt=job.attempt,
            checkpoint=mark if checkpoint else "",
        )
        return changed

    async def _release(self, job: Any) -> bool:
        request = pb.ReleaseJobRequest(
            job_id=job.id, attempt=job.attempt, release={"delay": a_delay(self.rng)}
        )
        answer = await self.replicas.ask("ReleaseJob", request)
        told = answer.told
        # A repetition may find the job with the next worker.
        changed = told is not None and answer.tries == 1
        self._record("ReleaseJob", answer, job.id, told=told, changed=changed, attempt=job.attempt)
        return told is not None

    async def _fail(self, job: Any) -> bool:
        mark = next(self._marks)
        error = job_pb2.JobError(reason="BUSY", message=mark)
        request = pb.MarkFailedRequest(
            job_id=job.id,
            attempt=job.attempt,
            finish={
                "result": marked(mark),
                "error": error,
                "retryable": True,
                "retry_delay": a_delay(self.rng),
            },
        )
        answer = await self.replicas.ask("MarkFailed", request)
        told = answer.told
        # A repetition may find the job with the next worker.
        changed = told is not None and answer.tries == 1
        self._record(
            RETRYABLE, answer, job.id, mark=mark, told=told, changed=changed, attempt=job.attempt
        )
        if told is not None and told.terminal:
            self.board.close(told)
        return told is not None

    async def _link(self, job: Any) -> bool:
        mark = next(self._marks)
        request = pb.CreateAssetRequest(
            job_id=job.id,
            attempt=job.attempt,
            asset={"asset": {"asset_type": "image/png", "storage_path": mark}, "request_id": mark},
        )
        answer = await self.replicas.ask("CreateAsset", request)
        self._record("CreateAsset", answer, job.id, mark=mark, assets=(mark,))
        return answer.response is not None

    async def _end(self, job: Any) -> bool:
        mark = next(self._marks)
        paths = tuple(f"{mark}/{number}" for number in range(self.rng.randint(0, 3)))
        fields: dict[str, Any] = {
            "result": marked(mark),
            "assets": [asset_pb2.NewAsset(asset_type="image/png", storage_path=p) for p in paths],
        }
        finish, names = pb.FinishUpdate(**fields), {"job_id": job.id, "attempt": job.attempt}
        error = job_pb2.JobError(
            reason="OUT_OF_PAINT", message="no paint is left", details=marked(mark)
        )
        rpc, request = self.rng.choices(
            [
                ("MarkCompleted", pb.MarkCompletedRequest(**names, finish=finish)),
                ("MarkPartial", pb.MarkPartialRequest(**names, finish=finish)),
                ("MarkFailed", pb.MarkFailedRequest(**names, finish={**fields, "error": error})),
                (
                    "TransitionJob",
                    pb.TransitionJobRequest(
                        **names,
                        target_status=job_pb2.JOB_STATUS_COMPLETED,
                        finish=finish,
                        worker_id=self.name,
                    ),
                ),
            ],
            weights=(70, 10, 10, 10),
        )[0]
        answer = await self.replicas.ask(rpc, request)
        told = answer.told
        self._record(
            rpc, answer, job.id, mark=mark, assets=paths, told=told, changed=told is not None
        )
        if told is not None:
            self.board.close(told)
        return told is not None

    def _record(self, rpc: str, answer: Answer, job_id: str, **facts: Any) -> None:
        self.history.operations.append(answer.operation(rpc, job_id=job_id, **facts))
