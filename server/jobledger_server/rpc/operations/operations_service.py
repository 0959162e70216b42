"""google.longrunning.Operations: jobs as operations, for generic clients."""

import asyncio
from dataclasses import dataclass
from functools import partial

from google.longrunning import operations_pb2 as pb
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from jobledger_server.domain.job import NO_PAYLOADS
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.ledger.ledger import Ledger, decision_of
from jobledger_server.ledger.reads import Reads
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.operations import operation_requests
from jobledger_server.rpc.operations.operation_messages import operation_message
from jobledger_server.rpc.pages import Page, job_page
from jobledger_server.rpc.payloads import payloads_of
from jobledger_server.rpc.stream_age import StreamAge
from jobledger_server.store import Store, StoredJob
from jobledger_server.watch.hub import WatchHub

MARGIN_SECONDS = 0.5
"""A wait ends this long before the call's deadline, so that the answer arrives in time; or a fifth
of the remaining time, if that is less."""


@dataclass(frozen=True, slots=True)
class OperationsService:
    """Converts requests to commands and reads, and their results to serialized operations."""

    store: Store
    ledger: Ledger
    reads: Reads
    hub: WatchHub
    lists: Lists
    max_age: float

    async def GetOperation(self, request: pb.GetOperationRequest, call: Call) -> bytes:
        job_id, user_id = operation_requests.owned_job(request, call)
        read = await self.reads.job(job_id, user_id, call.caller, full=True)
        return _serialized(operation_message(read))

    async def ListOperations(self, request: pb.ListOperationsRequest, call: Call) -> bytes:
        query = operation_requests.query(request, call)
        payloads = partial(payloads_of, self.reads, caller=call.caller)
        page = Page(request, ("operations", query.key()))
        async with self.lists.turn(call.caller):
            listed, token = await job_page(
                page, self.store, query, operation_message, payloads=payloads
            )
        return _serialized(pb.ListOperationsResponse(operations=listed, next_page_token=token))

    async def CancelOperation(self, request: pb.CancelOperationRequest, call: Call) -> bytes:
        command = operation_requests.cancel(request, call)
        decision_of(await self.ledger.submit([command], call.caller))
        return Empty().SerializeToString()

    async def DeleteOperation(self, request: pb.DeleteOperationRequest, call: Call) -> bytes:
        command = operation_requests.delete(request, call)
        decision_of(await self.ledger.submit([command], call.caller))
        return Empty().SerializeToString()

    async def WaitOperation(self, request: pb.WaitOperationRequest, call: Call) -> bytes:
        job_id, user_id, timeout = operation_requests.wait(request, call)
        loop = asyncio.get_running_loop()
        until = loop.time() + StreamAge(self.max_age).max_wait(min(timeout, _max_wait(call)))
        # Subscribe, then read: the watch keeps what is committed in between.
        with self.hub.subscribe(job_id, call.caller) as watch:
            job = (await self.reads.job(job_id, user_id, call.caller, full=False)).job
            watch.sent_up_to(job.version)
            while job.status not in TERMINAL and (rest := until - loop.time()) > 0:
                del job  # the wait may be long
                update = await watch.next_update(rest)
                if update is None:
                    job = (await self.reads.job(job_id, user_id, call.caller, full=False)).job
                else:
                    job = update.job
                del update
        (payloads,) = await payloads_of(self.reads, [job], call.caller)
        # A job that finished and was deleted since has none any more.
        return _serialized(operation_message(StoredJob(job, payloads=payloads or NO_PAYLOADS)))


def _serialized(response: Message) -> bytes:
    return response.SerializeToString()


def _max_wait(call: Call) -> float:
    """Return the seconds that a call can wait and still be answered before its deadline."""
    left = call.context.time_remaining()
    return float("inf") if left is None else left - min(MARGIN_SECONDS, left / 5)
