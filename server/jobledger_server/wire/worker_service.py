"""WorkerService: for those who do the work."""

from collections.abc import AsyncIterator
from typing import Any

from grpc.aio import ServicerContext

from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceServicer
from jobledger_server.wire.claims import Claims
from jobledger_server.wire.encoding import answer, job_bytes, with_jobs
from jobledger_server.wire.incoming import Incoming
from jobledger_server.wire.messages import asset_message, progress_message
from jobledger_server.wire.reporting import Reporting
from jobledger_server.wire.requests import Requests
from jobledger_server.wire.workers_ledger import WorkersLedger

Context = ServicerContext[Any, Any]


class WorkerService(WorkerServiceServicer):
    """Requests to commands, their outcome to messages."""

    def __init__(
        self, ledger: WorkersLedger, claims: Claims, requests: Requests, reporting: Reporting
    ) -> None:
        self._ledger = ledger
        self._claims = claims
        self._requests = requests
        self._reporting = reporting

    async def ClaimJobs(
        self, request: pb.ClaimJobsRequest, _context: Context
    ) -> pb.ClaimJobsResponse:
        jobs = await self._claims.claim(*self._requests.claim(request))
        return with_jobs(pb.ClaimJobsResponse, map(job_bytes, jobs))

    async def ReleaseJob(
        self, request: pb.ReleaseJobRequest, _context: Context
    ) -> pb.ReleaseJobResponse:
        decision = await self._ledger.apply(self._requests.release(request))
        return answer(pb.ReleaseJobResponse, decision.job)

    # What may be large comes unparsed; see handlers.py.
    async def TransitionJob(  # type: ignore[override]
        self, request: Incoming[pb.TransitionJobRequest], _context: Context
    ) -> pb.TransitionJobResponse:
        decision = await self._ledger.apply(await request.read(self._requests.transit))
        return answer(pb.TransitionJobResponse, decision.job)

    async def UpdateProgress(
        self, request: pb.UpdateProgressRequest, _context: Context
    ) -> pb.UpdateProgressResponse:
        decision = await self._ledger.apply(self._requests.report(request))
        return progress_message(decision)

    # Writes instead of yielding, as JobService.WatchJob does; and reads, instead of going through
    # the reports, which for each would be two generators more.
    async def ReportProgress(  # type: ignore[override]
        self, _reports: AsyncIterator[pb.ReportProgressRequest], context: Context
    ) -> None:
        await self._reporting.serve(context.read, context.write)

    async def MarkCompleted(  # type: ignore[override]
        self, request: Incoming[pb.MarkCompletedRequest], _context: Context
    ) -> pb.MarkCompletedResponse:
        decision = await self._ledger.apply(await request.read(self._requests.mark))
        return answer(pb.MarkCompletedResponse, decision.job)

    async def MarkPartial(  # type: ignore[override]
        self, request: Incoming[pb.MarkPartialRequest], _context: Context
    ) -> pb.MarkPartialResponse:
        decision = await self._ledger.apply(await request.read(self._requests.mark))
        return answer(pb.MarkPartialResponse, decision.job)

    async def MarkFailed(  # type: ignore[override]
        self, request: Incoming[pb.MarkFailedRequest], _context: Context
    ) -> pb.MarkFailedResponse:
        decision = await self._ledger.apply(await request.read(self._requests.mark))
        return answer(pb.MarkFailedResponse, decision.job)

    async def CreateAsset(
        self, request: pb.CreateAssetRequest, _context: Context
    ) -> pb.CreateAssetResponse:
        decision = await self._ledger.apply(self._requests.link_asset(request))
        (asset,) = decision.assets
        return pb.CreateAssetResponse(asset=asset_message(asset))
