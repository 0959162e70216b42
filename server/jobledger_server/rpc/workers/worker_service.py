"""WorkerService: for the workers that run jobs."""

from dataclasses import dataclass
from typing import Any

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.domain.commands import ChangeStatus, WorkerCommand
from jobledger_server.domain.job import Job
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.ledger import Ledger, decision_of
from jobledger_server.ledger.long_poll import LongPoll
from jobledger_server.ledger.lost_answers import LostAnswers
from jobledger_server.rpc.access.permissions import check_job_types
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.incoming import UnparsedRequest
from jobledger_server.rpc.messages import (
    job_bytes,
    job_response,
    jobs_response,
    progress_response,
    result_message,
)
from jobledger_server.rpc.workers.work_streams import WorkStreams
from jobledger_server.rpc.workers.worker_requests import WorkerRequests, limited


@dataclass(frozen=True, slots=True)
class WorkerService:
    """Converts requests to commands, and their results to serialized responses."""

    ledger: Ledger
    long_poll: LongPoll
    lost_answers: LostAnswers
    requests: WorkerRequests
    work_streams: WorkStreams

    async def _decide(self, command: WorkerCommand, call: Call) -> Decision:
        command = limited(command, call.caller)
        return decision_of(await self.ledger.submit([command], call.caller))

    async def ClaimJobs(self, request: pb.ClaimJobsRequest, call: Call) -> bytes:
        claim, wait, holding = self.requests.claim(request)
        check_job_types(call.caller, claim.job_types)
        if holding is not None:
            await self.lost_answers.release(claim, holding, call.caller)
        started = await self.long_poll.claim(claim, wait, call.caller)
        jobs = [job_bytes(start.job, start.payloads) for start in started]
        return jobs_response(pb.ClaimJobsResponse, jobs)

    async def ReleaseJob(self, request: pb.ReleaseJobRequest, call: Call) -> bytes:
        decision = await self._decide(self.requests.release(request), call)
        return job_response(pb.ReleaseJobResponse, decision.job)

    async def TransitionJob(
        self, request: UnparsedRequest[pb.TransitionJobRequest], call: Call
    ) -> bytes:
        command = await request.read(call, self.requests.change_status)
        decision = await self._decide(command, call)
        return job_response(pb.TransitionJobResponse, decision.job)

    async def UpdateProgress(
        self, request: UnparsedRequest[pb.UpdateProgressRequest], call: Call
    ) -> bytes:
        command = await request.read(call, self.requests.report)
        return progress_response(await self._decide(command, call))

    async def Work(self, _: None, call: Call) -> None:
        await self.work_streams.serve(call)

    async def MarkCompleted(
        self, request: UnparsedRequest[pb.MarkCompletedRequest], call: Call
    ) -> bytes:
        return job_response(pb.MarkCompletedResponse, await self._marked(request, call))

    async def MarkPartial(
        self, request: UnparsedRequest[pb.MarkPartialRequest], call: Call
    ) -> bytes:
        return job_response(pb.MarkPartialResponse, await self._marked(request, call))

    async def MarkFailed(self, request: UnparsedRequest[pb.MarkFailedRequest], call: Call) -> bytes:
        return job_response(pb.MarkFailedResponse, await self._marked(request, call))

    async def _marked(self, request: UnparsedRequest[Any], call: Call) -> Job:
        command: ChangeStatus = await request.read(call, self.requests.mark)
        return (await self._decide(command, call)).job

    async def AppendOutput(
        self, request: UnparsedRequest[pb.AppendOutputRequest], call: Call
    ) -> bytes:
        command = await request.read(call, self.requests.append_output)
        decision = await self._decide(command, call)
        return pb.AppendOutputResponse(next_offset=decision.next_offset).SerializeToString()

    async def CreateAsset(self, request: pb.CreateAssetRequest, call: Call) -> bytes:
        decision = await self._decide(self.requests.link_asset(request), call)
        return pb.CreateAssetResponse(asset=result_message(decision).asset).SerializeToString()
