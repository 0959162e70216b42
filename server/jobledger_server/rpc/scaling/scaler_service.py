"""KEDA's ExternalScaler: scales workers by the jobs that are ready and those that are held.

Held jobs count too: by the ready jobs alone KEDA would end workers that are busy. Jobs of a
paused type do not count as ready, nor do blocked and scheduled ones: more workers would start
none of them.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from jobledger_server.admission.endings import ShuttingDown
from jobledger_server.domain.limits import MAX_JOB_TYPES
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.keda import externalscaler_pb2 as pb
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.stream_age import StreamAge
from jobledger_server.rpc.validation import Checker
from jobledger_server.store import Store

METRIC = "jobledger-jobs"
"""The name of the only metric."""

MAX_JOBS_PER_WORKER = 1_000_000

IDLE_SECONDS = 60.0
"""How often a stream looks whether there are jobs that it was not woken for: a job that went from
being scheduled to being held, for instance."""


class Scale(NamedTuple):
    """What a ScaledObject scales by: jobs of these types, so many for each worker."""

    job_types: tuple[str, ...]
    jobs_per_worker: float


def scale(ref: pb.ScaledObjectRef) -> Scale:
    """Read the metadata of a trigger. Raises InvalidRequest."""
    with Checker("scalerMetadata.") as check:
        names = [name.strip() for name in ref.scalerMetadata.get("jobTypes", "").split(",")]
        job_types: tuple[str, ...] = ()
        if check.at_most("jobTypes", names, MAX_JOB_TYPES):
            job_types = tuple(dict.fromkeys(check.job_type("jobTypes", name) for name in names))
        jobs_per_worker = 0.0
        with suppress(ValueError):
            jobs_per_worker = float(ref.scalerMetadata.get("jobsPerWorker", "1"))
        if not 0 < jobs_per_worker <= MAX_JOBS_PER_WORKER:
            check.add("jobsPerWorker", f"must be a number above 0, at most {MAX_JOBS_PER_WORKER}")
    return Scale(job_types, jobs_per_worker)


@dataclass(frozen=True, slots=True)
class ScalerService:
    """Converts KEDA's requests to reads of the counters, and these to its responses."""

    store: Store
    waiters: ClaimWaiters
    lists: Lists
    max_age: float
    active_seconds: float

    async def IsActive(self, request: pb.ScaledObjectRef, call: Call) -> bytes:
        jobs = await self._jobs(scale(request), call)
        return pb.IsActiveResponse(result=jobs > 0).SerializeToString()

    async def GetMetricSpec(self, request: pb.ScaledObjectRef, call: Call) -> bytes:  # noqa: ARG002
        target = scale(request).jobs_per_worker
        spec = pb.MetricSpec(
            metricName=METRIC, targetSize=max(1, round(target)), targetSizeFloat=target
        )
        return pb.GetMetricSpecResponse(metricSpecs=[spec]).SerializeToString()

    async def GetMetrics(self, request: pb.GetMetricsRequest, call: Call) -> bytes:
        jobs = await self._jobs(scale(request.scaledObjectRef), call)
        value = pb.MetricValue(metricName=METRIC, metricValue=jobs, metricValueFloat=jobs)
        return pb.GetMetricsResponse(metricValues=[value]).SerializeToString()

    async def StreamIsActive(self, request: pb.ScaledObjectRef, call: Call) -> None:
        wanted, age = scale(request), StreamAge(self.max_age)
        sent: bool | None = None
        while True:
            # While there is no job, the stream waits as a claim does. It takes no wake-up from a
            # worker: when it leaves the block, it passes it on.
            with self.waiters.waiting(wanted.job_types) as waiter:
                active = await self._jobs(wanted, call) > 0
                if active is not sent:
                    await call.write(pb.IsActiveResponse(result=active).SerializeToString())
                    sent = active
                if not active:
                    await waiter.wait(age.max_wait(IDLE_SECONDS))
            if active:
                with suppress(TimeoutError):
                    async with asyncio.timeout(age.max_wait(self.active_seconds)):
                        await self.waiters.drained.wait()
            if self.waiters.draining:
                raise ShuttingDown

    async def _jobs(self, wanted: Scale, call: Call) -> int:
        """Return how many jobs wait for a worker or are held."""
        async with self.lists.turn(call.caller):
            page = await self.store.queue_reports.stats(
                limit=len(wanted.job_types), job_types=wanted.job_types
            )
        return sum(
            stats.total.held + (stats.total.ready if stats.pause is None else 0)
            for stats in page.types
        )
