"""JobService: for the owners of jobs."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.domain.job import Asset, AssetId, Transition
from jobledger_server.ledger.ledger import Ledger, decision_of, decisions_of
from jobledger_server.ledger.reads import Reads
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.incoming import UnparsedRequest
from jobledger_server.rpc.jobs import job_requests
from jobledger_server.rpc.jobs.creation_quotas import CreationQuotas
from jobledger_server.rpc.jobs.feed_streams import FeedStreams
from jobledger_server.rpc.jobs.shared_messages import SharedMessages
from jobledger_server.rpc.jobs.trace_context import traceparent_of
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.messages import (
    WATCH_HEARTBEAT,
    asset_message,
    job_bytes,
    job_response,
    jobs_response,
    transition_message,
    watch_message,
)
from jobledger_server.rpc.pages import (
    ROWS_PER_STEP,
    Page,
    id_from,
    job_page,
    message_bytes,
    number_from,
)
from jobledger_server.rpc.stream_age import StreamAge
from jobledger_server.store import Store
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.job_watch import JobUpdate


@dataclass(frozen=True, slots=True)
class JobService:
    """Converts requests to commands and reads, and their results to serialized responses."""

    store: Store
    ledger: Ledger
    reads: Reads
    hub: WatchHub
    lists: Lists
    creations: CreationQuotas
    feed_streams: FeedStreams
    heartbeat: float
    max_watch_age: float
    _messages: SharedMessages = field(default_factory=SharedMessages, init=False)

    async def CreateJob(self, request: UnparsedRequest[pb.CreateJobRequest], call: Call) -> bytes:
        read = partial(job_requests.create, traceparent=traceparent_of(call.metadata))
        command = await request.read(call, read, self.creations.check)
        async with self.creations.creating(call.caller, command.user_id):
            decision = decision_of(await self.ledger.submit([command], call.caller))
        return job_response(pb.CreateJobResponse, decision.job)

    async def BatchCreateJobs(
        self, request: UnparsedRequest[pb.BatchCreateJobsRequest], call: Call
    ) -> bytes:
        read = partial(job_requests.create_all, traceparent=traceparent_of(call.metadata))
        command = await request.read(call, read, self.creations.check)
        creations = command.creations
        async with self.creations.creating(call.caller, creations[0].user_id, len(creations)):
            decisions = decisions_of(await self.ledger.submit([command], call.caller))
        jobs = []
        for decision in decisions:
            jobs.append(job_bytes(decision.job))
            if len(jobs) % ROWS_PER_STEP == 0:
                await asyncio.sleep(0)
        return jobs_response(pb.BatchCreateJobsResponse, jobs)

    async def GetJob(self, request: pb.GetJobRequest, call: Call) -> bytes:
        job = await self.reads.job(*job_requests.owned_job(request), call.caller)
        return job_response(pb.GetJobResponse, job)

    async def ListJobs(self, request: pb.ListJobsRequest, call: Call) -> bytes:
        query = job_requests.query(request)
        page = job_page(request, query.key(), self.store, query)
        async with self.lists.turn(call.caller):
            listed = await page.read(job_bytes, len)
        rest = pb.ListJobsResponse(next_page_token=page.next_token)
        return jobs_response(pb.ListJobsResponse, listed) + rest.SerializeToString()

    async def CancelJob(self, request: pb.CancelJobRequest, call: Call) -> bytes:
        command = job_requests.cancel(request)
        decision = decision_of(await self.ledger.submit([command], call.caller))
        return job_response(pb.CancelJobResponse, decision.job)

    async def DeleteJob(self, request: pb.DeleteJobRequest, call: Call) -> bytes:
        decision_of(await self.ledger.submit([job_requests.delete(request)], call.caller))
        return pb.DeleteJobResponse().SerializeToString()

    async def ListAssets(self, request: pb.ListAssetsRequest, call: Call) -> bytes:
        job_id, user_id = job_requests.owned_job(request)

        async def assets(after: str | None, limit: int) -> tuple[Sequence[Asset], None]:
            last = AssetId(id_from(after)) if after else None
            return await self.store.list_assets(job_id, after=last, limit=limit + 1), None

        page = Page(request, ("assets", job_id), assets, cursor=lambda asset: asset.id)
        await self.reads.job(job_id, user_id, call.caller)
        async with self.lists.turn(call.caller):
            listed = await page.read(partial(asset_message, user_id=user_id), message_bytes)
        response = pb.ListAssetsResponse(assets=listed, next_page_token=page.next_token)
        return response.SerializeToString()

    async def ListTransitions(self, request: pb.ListTransitionsRequest, call: Call) -> bytes:
        job_id, user_id = job_requests.owned_job(request)

        async def transitions(after: str | None, limit: int) -> tuple[Sequence[Transition], None]:
            version = number_from(after)
            _, history = await self.reads.history(job_id, user_id, call.caller)
            return [each for each in history if each.version > version][: limit + 1], None

        page = Page(
            request,
            ("transitions", job_id),
            transitions,
            cursor=lambda transition: str(transition.version),
        )
        listed = await page.read(transition_message, message_bytes)
        response = pb.ListTransitionsResponse(transitions=listed, next_page_token=page.next_token)
        return response.SerializeToString()

    # Writes instead of yielding: gRPC does not close a generator whose write failed (grpc#42295).
    async def WatchJob(self, request: pb.WatchJobRequest, call: Call) -> None:
        job_id, user_id = job_requests.owned_job(request)
        age = StreamAge(self.max_watch_age)
        # Subscribe, then read: the watch keeps what is committed in between.
        with self.hub.subscribe(job_id, call.caller) as watch:
            job, history = await self.reads.history(job_id, user_id, call.caller)
            watch.sent_up_to(job.version)
            unsent = tuple(each for each in history if each.version > request.after_version)
            message, last = self._message(JobUpdate(job, unsent))
            # The client may not read for a long time. It then holds only the message.
            del job
            await call.write(message)
            while not last:
                del message
                update = await watch.next_update(age.max_wait(self.heartbeat))
                if update is None:
                    message = WATCH_HEARTBEAT
                else:
                    message, last = self._message(update)
                    del update
                await call.write(message)

    async def WatchJobs(self, request: pb.WatchJobsRequest, call: Call) -> None:
        selection = job_requests.selection(request)
        await self.feed_streams.serve(selection, request.resume_token, call)

    def _message(self, update: JobUpdate) -> tuple[bytes, bool]:
        """Return the serialized update, and whether it is the last one of a stream."""
        job, versions = update.job, tuple(each.version for each in update.transitions)
        # Without a new version only the lease changes. In a restored database a version can be
        # another one, of another time.
        key = job.id, job.version, job.update_time, job.lease_expire_time, versions
        make = partial(watch_message, job, update.transitions)
        return self._messages.get(key, make), update.last
