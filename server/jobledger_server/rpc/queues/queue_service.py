"""QueueService: for operators. Owners may ask why their jobs wait."""

from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from jobledger.v1 import queue_service_pb2 as pb
from jobledger_server.domain.errors import JobNotFound
from jobledger_server.domain.waiting import wait_reasons
from jobledger_server.ledger.pollers import Pollers
from jobledger_server.ledger.queue_control import QueueControl
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.messages import job_response, time_message
from jobledger_server.rpc.pages import Page
from jobledger_server.rpc.queues import queue_requests
from jobledger_server.rpc.queues.queue_messages import (
    limit_message,
    pause_message,
    reason_message,
    stats_message,
    type_message,
)
from jobledger_server.store import Store


@dataclass(frozen=True, slots=True)
class QueueService:
    """Converts requests to settings and reads, and their results to serialized responses."""

    store: Store
    control: QueueControl
    lists: Lists
    pollers: Pollers

    async def ListJobTypeStats(self, request: pb.ListJobTypeStatsRequest, call: Call) -> bytes:
        job_types, fairness_key = queue_requests.stats(request)
        page = Page(request, ("stats", job_types, fairness_key))
        after, asked = queue_requests.type_from(page.after), self.pollers.is_polled
        async with self.lists.turn(call.caller):
            found = await self.store.queue_reports.stats(
                limit=page.limit, after=after, job_types=job_types, fairness_key=fairness_key
            )
            rows = [replace(row, polled=row.polled or asked(row.job_type)) for row in found.types]
            stats, token = await page.messages(
                rows,
                partial(stats_message, now=found.time),
                cursor=lambda row: row.job_type,
                rest=rows[-1].job_type if found.more else None,
            )
        time = time_message(found.time)
        response = pb.ListJobTypeStatsResponse(stats=stats, next_page_token=token, read_time=time)
        return response.SerializeToString()

    async def ExplainJob(self, request: pb.ExplainJobRequest, call: Call) -> bytes:
        job_id, user_id = queue_requests.explained_job(request)
        async with self.lists.turn(call.caller):
            facts = await self.store.queue_reports.wait_facts(job_id, user_id=user_id)
        if facts is None:
            raise JobNotFound(job_id)
        if self.pollers.is_polled(facts.job.job_type):  # what it records is some seconds old
            facts = replace(facts, polled=True)
        # An owner is not told who paused.
        reasons = [reason_message(each, actor=user_id is None) for each in wait_reasons(facts)]
        rest = pb.ExplainJobResponse(reasons=reasons)
        return (
            job_response(pb.ExplainJobResponse, facts.job, to_owner=True) + rest.SerializeToString()
        )

    async def PauseJobType(self, request: pb.PauseJobTypeRequest, call: Call) -> bytes:
        setting = queue_requests.pause_type(request, call.caller)
        pause = await self.control.submit(setting, call.caller)
        return pb.PauseJobTypeResponse(pause=pause_message(pause)).SerializeToString()

    async def ResumeJobType(self, request: pb.ResumeJobTypeRequest, call: Call) -> bytes:
        await self.control.submit(queue_requests.resume_type(request), call.caller)
        return pb.ResumeJobTypeResponse().SerializeToString()

    async def SetConcurrencyLimit(
        self, request: pb.SetConcurrencyLimitRequest, call: Call
    ) -> bytes:
        setting = queue_requests.set_limit(request)
        limit = await self.control.submit(setting, call.caller)
        return pb.SetConcurrencyLimitResponse(limit=limit_message(limit)).SerializeToString()

    async def PauseConcurrencyKey(
        self, request: pb.PauseConcurrencyKeyRequest, call: Call
    ) -> bytes:
        setting = queue_requests.pause_key(request, call.caller)
        limit = await self.control.submit(setting, call.caller)
        return pb.PauseConcurrencyKeyResponse(limit=limit_message(limit)).SerializeToString()

    async def ResumeConcurrencyKey(
        self, request: pb.ResumeConcurrencyKeyRequest, call: Call
    ) -> bytes:
        await self.control.submit(queue_requests.resume_key(request), call.caller)
        return pb.ResumeConcurrencyKeyResponse().SerializeToString()

    async def ListConcurrencyLimits(
        self, request: pb.ListConcurrencyLimitsRequest, call: Call
    ) -> bytes:
        queue_requests.limits(request)
        page = Page(request, "limits")
        after = queue_requests.name_from(page.after)
        async with self.lists.turn(call.caller):
            rows = await self.store.queue_settings.limits(after=after, limit=page.limit + 1)
            listed, token = await page.messages(
                rows, limit_message, cursor=lambda row: queue_requests.name_cursor(row.name)
            )
        response = pb.ListConcurrencyLimitsResponse(limits=listed, next_page_token=token)
        return response.SerializeToString()

    async def SetJobTypeDefaults(self, request: pb.SetJobTypeDefaultsRequest, call: Call) -> bytes:
        setting = queue_requests.type_defaults(request)
        await self.control.submit(setting, call.caller)
        job_type = type_message((setting.job_type, setting.defaults))
        return pb.SetJobTypeDefaultsResponse(job_type=job_type).SerializeToString()

    async def ListJobTypes(self, request: pb.ListJobTypesRequest, call: Call) -> bytes:
        queue_requests.types(request)
        page = Page(request, "job types")
        after = queue_requests.type_from(page.after)
        async with self.lists.turn(call.caller):
            rows = await self.store.queue_settings.type_defaults(after=after, limit=page.limit + 1)
            listed, token = await page.messages(rows, type_message, cursor=lambda row: row[0])
        response = pb.ListJobTypesResponse(job_types=listed, next_page_token=token)
        return response.SerializeToString()
