"""WorkerService: for the workers that run jobs."""

from collections.abc import AsyncIterator
from typing import Any

from grpc.aio import ServicerContext

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.rpc.incoming import UnparsedRequest
from jobledger_server.rpc.messages import (
    asset_message,
    job_bytes,
    job_response,
    jobs_response,
    progress_response,
)
from jobledger_server.rpc.workers.work_streams import WorkStreams
from jobledger_server.rpc.workers.worker_ledger import WorkerLedger
from jobledger_server.rpc.workers.worker_requests import WorkerRequests

Context = ServicerContext[Any, Any]


class WorkerService:
    """Converts requests to commands, and their results to serialized responses."""

    def __init__(
        self,
        ledger: WorkerLedger,
        requests: WorkerRequests,
        work_streams: WorkStreams,
    ) -> None:
        self._ledger = ledger
        self._requests = requests
        self._work_streams = work_streams

    async def ClaimJobs(self, request: pb.ClaimJobsRequest, _context: Context) -> bytes:
        jobs = await self._ledger.claim(*self._requests.claim(request))
        return jobs_response(pb.ClaimJobsResponse, map(job_bytes, jobs))

    async def ReleaseJob(self, request: pb.ReleaseJobRequest, _context: Context) -> bytes:
        decision = await self._ledger.apply(self._requests.release(request))
        return job_response(pb.ReleaseJobResponse, decision.job)

    # Requests that may be large are unparsed; see calls.py.
    async def TransitionJob(
        self, request: UnparsedRequest[pb.TransitionJobRequest], _context: Context
    ) -> bytes:
        decision = await self._ledger.apply(await request.read(self._requests.change_status))
        return job_response(pb.TransitionJobResponse, decision.job)

    async def UpdateProgress(self, request: pb.UpdateProgressRequest, _context: Context) -> bytes:
        decision = await self._ledger.apply(self._requests.report(request))
        return progress_response(decision)

    # Writes instead of yielding, as JobService.WatchJob does. Reads instead of iterating, which
    # would go through two more generators for each message; they are not parsed yet: handlers.py.
    async def Work(self, _messages: AsyncIterator[bytes], context: Context) -> None:
        await self._work_streams.serve(context.read, context.write)

    async def MarkCompleted(
        self, request: UnparsedRequest[pb.MarkCompletedRequest], _context: Context
    ) -> bytes:
        decision = await self._ledger.apply(await request.read(self._requests.mark))
        return job_response(pb.MarkCompletedResponse, decision.job)

    async def MarkPartial(
        self, request: UnparsedRequest[pb.MarkPartialRequest], _context: Context
    ) -> bytes:
        decision = await self._ledger.apply(await request.read(self._requests.mark))
        return job_response(pb.MarkPartialResponse, decision.job)

    async def MarkFailed(
        self, request: UnparsedRequest[pb.MarkFailedRequest], _context: Context
    ) -> bytes:
        decision = await self._ledger.apply(await request.read(self._requests.mark))
        return job_response(pb.MarkFailedResponse, decision.job)

    async def CreateAsset(self, request: pb.CreateAssetRequest, _context: Context) -> bytes:
        decision = await self._ledger.apply(self._requests.link_asset(request))
        (asset,) = decision.assets
        return pb.CreateAssetResponse(
            asset=asset_message(asset, decision.job.user_id)
        ).SerializeToString()
