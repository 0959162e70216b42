"""JobService: for the owners of jobs."""

from dataclasses import dataclass
from functools import partial

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.job import (
    NO_PAYLOADS,
    AssetId,
    JobId,
)
from jobledger_server.domain.leases import attempts
from jobledger_server.domain.limits import MAX_ANSWER_BYTES
from jobledger_server.domain.settings import RevokeWatchTokens
from jobledger_server.ledger.ledger import Ledger, decision_of, decisions_of
from jobledger_server.ledger.queue_control import QueueControl
from jobledger_server.ledger.reads import Reads
from jobledger_server.rpc.access.permissions import check_creations, check_priority
from jobledger_server.rpc.access.watch_tokens import TokenTooLong, WatchTokens
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.incoming import UnparsedRequest
from jobledger_server.rpc.jobs import bulk_requests, job_requests, output_requests
from jobledger_server.rpc.jobs.bulk import Bulk, stepped_response
from jobledger_server.rpc.jobs.creation_quotas import CreationQuotas
from jobledger_server.rpc.jobs.deleted_assets import deleted_assets
from jobledger_server.rpc.jobs.feed_streams import FeedStreams
from jobledger_server.rpc.jobs.job_streams import JobStreams
from jobledger_server.rpc.jobs.output_streams import OutputStreams
from jobledger_server.rpc.jobs.trace_context import traceparent_of
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.messages import (
    asset_message,
    attempt_message,
    job_bytes,
    job_response,
    jobs_response,
    transition_message,
)
from jobledger_server.rpc.pages import Page, id_from, job_page, number_from, paced
from jobledger_server.rpc.payloads import payloads_of
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.store import Store


@dataclass(frozen=True, slots=True)
class JobService:
    """Converts requests to commands and reads, and their results to serialized responses."""

    store: Store
    ledger: Ledger
    reads: Reads
    lists: Lists
    creations: CreationQuotas
    job_streams: JobStreams
    feed_streams: FeedStreams
    output_streams: OutputStreams
    bulk: Bulk
    tokens: WatchTokens
    control: QueueControl

    async def CreateJob(self, request: UnparsedRequest[pb.CreateJobRequest], call: Call) -> bytes:
        read = partial(job_requests.create, traceparent=traceparent_of(call.metadata))
        command = await request.read(call, read, self.creations.check)
        check_creations(call.caller, [command])
        async with self.creations.creating(call.caller, {command.user_id: 1}):
            decision = decision_of(await self.ledger.submit([command], call.caller))
        rest = pb.CreateJobResponse(existing=not decision.changed)
        return (
            job_response(pb.CreateJobResponse, decision.job, to_owner=True)
            + rest.SerializeToString()
        )

    async def BatchCreateJobs(
        self, request: UnparsedRequest[pb.BatchCreateJobsRequest], call: Call
    ) -> bytes:
        read = partial(job_requests.create_all, traceparent=traceparent_of(call.metadata))
        command = await request.read(call, read, self.creations.check)
        creations = command.creations
        check_creations(call.caller, creations)
        counts = {creations[0].user_id: len(creations)}
        async with self.creations.creating(call.caller, counts):
            decisions = decisions_of(await self.ledger.submit([command], call.caller))
        jobs = [job_bytes(decision.job, to_owner=True) async for decision in paced(decisions)]
        rest = pb.BatchCreateJobsResponse(existing=[not each.changed for each in decisions])
        return jobs_response(pb.BatchCreateJobsResponse, jobs) + rest.SerializeToString()

    async def SealGroup(self, request: pb.SealGroupRequest, call: Call) -> bytes:
        command = job_requests.seal(request)
        decision = decision_of(await self.ledger.submit([command], call.caller))
        return job_response(pb.SealGroupResponse, decision.job, to_owner=True)

    async def GetJob(self, request: pb.GetJobRequest, call: Call) -> bytes:
        job_id, user_id, full = job_requests.viewed_job(request)
        read = await self.reads.job(job_id, user_id, call.caller, full=full)
        owner = call.caller.permissions.scope is None
        return job_response(pb.GetJobResponse, read.job, read.payloads, to_owner=owner)

    async def BatchGetJobs(self, request: pb.BatchGetJobsRequest, call: Call) -> bytes:
        ids, user_id, full = job_requests.batch(request)
        read = await self.reads.jobs(ids, user_id, call.caller, full=False)
        found = [(read[job_id].job, NO_PAYLOADS) for job_id in ids if job_id in read]
        if full:
            # Before they are read.
            _check_size(sum(job.payload_bytes for job, _ in found))
            jobs = [job for job, _ in found]
            payloads = await payloads_of(self.reads, jobs, call.caller)
            found = [
                (job, each) for job, each in zip(jobs, payloads, strict=True) if each is not None
            ]
        serialized = [
            job_bytes(job, payloads, to_owner=True) async for job, payloads in paced(found)
        ]
        _check_size(sum(map(len, serialized)))
        names = {job.id for job, _ in found}
        rest = pb.BatchGetJobsResponse(missing_job_ids=[each for each in ids if each not in names])
        return jobs_response(pb.BatchGetJobsResponse, serialized) + rest.SerializeToString()

    async def ListJobs(self, request: pb.ListJobsRequest, call: Call) -> bytes:
        query, full = job_requests.query(request)
        payloads = partial(payloads_of, self.reads, caller=call.caller) if full else None
        page = Page(request, query.key())
        to_owner = call.caller.permissions.scope is None
        async with self.lists.turn(call.caller):
            listed, token = await job_page(
                page,
                self.store,
                query,
                lambda row: job_bytes(row.job, row.payloads, to_owner=to_owner),
                payloads=payloads,
            )
        rest = pb.ListJobsResponse(next_page_token=token)
        return jobs_response(pb.ListJobsResponse, listed) + rest.SerializeToString()

    async def CancelJob(self, request: pb.CancelJobRequest, call: Call) -> bytes:
        command = job_requests.cancel(request)
        decision = decision_of(await self.ledger.submit([command], call.caller))
        return job_response(pb.CancelJobResponse, decision.job, to_owner=True)

    async def UpdateJob(self, request: pb.UpdateJobRequest, call: Call) -> bytes:
        command = job_requests.update(request)
        if command.priority is not None:
            check_priority(call.caller, command.priority)
        decision = decision_of(await self.ledger.submit([command], call.caller))
        return job_response(pb.UpdateJobResponse, decision.job, to_owner=True)

    async def DeleteJob(self, request: pb.DeleteJobRequest, call: Call) -> bytes:
        command = job_requests.delete(request)
        decision = decision_of(await self.ledger.submit([command], call.caller))
        if not decision.deleted:
            decision = await self.bulk.groups.delete(decision.job, call.caller)
        job = decision.job
        # They are kept with its deletion.
        assets = await deleted_assets(self.reads, [job], call.caller)
        return pb.DeleteJobResponse(assets=assets.get(job.id)).SerializeToString()

    async def RerunJob(self, request: pb.RerunJobRequest, call: Call) -> bytes:
        job_id, user_id, request_id = job_requests.rerun(request)
        traceparent = traceparent_of(call.metadata)
        decision = await self.bulk.rerun(job_id, user_id, request_id, traceparent, call.caller)
        rest = pb.RerunJobResponse(existing=not decision.changed)
        return (
            job_response(pb.RerunJobResponse, decision.job, to_owner=True)
            + rest.SerializeToString()
        )

    async def RerunJobs(self, request: pb.RerunJobsRequest, call: Call) -> bytes:
        step = bulk_requests.rerun_jobs(request)
        stepped = await self.bulk.rerun_jobs(step, traceparent_of(call.metadata), call.caller)
        return stepped_response(pb.RerunJobsResponse, stepped)

    async def CancelJobs(self, request: pb.CancelJobsRequest, call: Call) -> bytes:
        stepped = await self.bulk.cancel_jobs(bulk_requests.cancel_jobs(request), call.caller)
        return stepped_response(pb.CancelJobsResponse, stepped)

    async def DeleteJobs(self, request: pb.DeleteJobsRequest, call: Call) -> bytes:
        stepped = await self.bulk.delete_jobs(bulk_requests.delete_jobs(request), call.caller)
        return stepped_response(pb.DeleteJobsResponse, stepped)

    async def ListAssets(self, request: pb.ListAssetsRequest, call: Call) -> bytes:
        job_id, user_id = job_requests.listed_job(request)
        page = Page(request, ("assets", job_id))
        after = AssetId(id_from(page.after)) or None
        await self.reads.job(job_id, user_id, call.caller, full=False)
        message = partial(asset_message, user_id=user_id)
        async with self.lists.turn(call.caller):
            rows = await self.store.list_assets(job_id, after=after, limit=page.limit + 1)
            listed, token = await page.messages(rows, message, cursor=lambda row: row.id)
        return pb.ListAssetsResponse(assets=listed, next_page_token=token).SerializeToString()

    async def ListTransitions(self, request: pb.ListTransitionsRequest, call: Call) -> bytes:
        job_id, user_id = job_requests.listed_job(request)
        page = Page(request, ("transitions", job_id))
        after = number_from(page.after)
        read = await self.reads.job(job_id, user_id, call.caller, full=False)
        rows = [each for each in read.transitions if each.version > after]
        listed, token = await page.messages(
            rows, transition_message, cursor=lambda row: str(row.version)
        )
        response = pb.ListTransitionsResponse(transitions=listed, next_page_token=token)
        return response.SerializeToString()

    async def ListAttempts(self, request: pb.ListAttemptsRequest, call: Call) -> bytes:
        job_id, user_id = job_requests.listed_job(request)
        page = Page(request, ("attempts", job_id))
        after = number_from(page.after)
        async with self.lists.turn(call.caller):
            # First the job, then the ended attempts: its last one may be among these by now.
            read = await self.reads.job(job_id, user_id, call.caller, full=False)
            rows = await self.store.list_attempts(job_id, after=after, limit=page.limit + 1)
            if len(rows) <= page.limit:
                rows = [each for each in attempts(read.job, rows) if each.number > after]
            listed, token = await page.messages(
                rows, attempt_message, cursor=lambda row: str(row.number)
            )
        return pb.ListAttemptsResponse(attempts=listed, next_page_token=token).SerializeToString()

    async def CreateWatchToken(self, request: pb.CreateWatchTokenRequest, call: Call) -> bytes:
        scope, until = job_requests.watch_token(request)
        if scope.job_id:
            await self.reads.job(JobId(scope.job_id), scope.user_id, call.caller, full=False)
        try:
            token = await self.tokens.make(scope, until)
        except TokenTooLong:
            raise InvalidRequest([("labels", "have more text than a token may have")]) from None
        response = pb.CreateWatchTokenResponse(token=token)
        response.expire_time.FromSeconds(until)
        return response.SerializeToString()

    async def RevokeWatchTokens(self, _: pb.RevokeWatchTokensRequest, call: Call) -> bytes:
        await self.control.submit(RevokeWatchTokens(), call.caller)
        return pb.RevokeWatchTokensResponse().SerializeToString()

    async def WatchJob(self, request: pb.WatchJobRequest, call: Call) -> None:
        job_id, user_id, full = job_requests.viewed_job(request)
        await self.job_streams.serve(job_id, user_id, request.after_version, call, full=full)

    async def WatchJobs(self, request: pb.WatchJobsRequest, call: Call) -> None:
        selection, full = job_requests.selection(request)
        await self.feed_streams.serve(selection, request.resume_token, call, full=full)

    async def WatchOutput(self, request: pb.WatchOutputRequest, call: Call) -> None:
        await self.output_streams.watch(output_requests.watched(request), call)

    async def ReadOutput(self, request: pb.ReadOutputRequest, call: Call) -> bytes:
        place, max_bytes = output_requests.read(request)
        return await self.output_streams.read(place, max_bytes, call)


def _check_size(size: int) -> None:
    """Raise LimitExceeded if the jobs of an answer have more bytes than it may have."""
    if size > MAX_ANSWER_BYTES:
        raise LimitExceeded("answer_bytes", MAX_ANSWER_BYTES, scope="request")
