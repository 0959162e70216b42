"""Calls google.longrunning.Operations with the generated stub, for a user or for none."""

from typing import Any

import grpc
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub

from jobledger.v1 import job_pb2
from tests.support.rpc_caller import FULL, Caller


class Operations:
    """`await operations.Get(name=…)`, as ada unless `metadata` says otherwise."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = OperationsStub(channel)

    def __getattr__(self, verb: str) -> Any:
        method = f"{verb}Operations" if verb == "List" else f"{verb}Operation"
        request_type = getattr(operations_pb2, f"{method}Request")

        def call(
            metadata: tuple[tuple[str, str | bytes], ...] = (("x-jobledger-user", "ada"),),
            deadline: float | None = 30,
            **fields: Any,
        ) -> Any:
            request = request_type(**fields)
            return getattr(self._stub, method)(request, timeout=deadline, metadata=metadata)

        return call


def name_of(job: job_pb2.Job) -> str:
    return f"jobs/{job.id}"


async def full(call: Caller, job: job_pb2.Job) -> job_pb2.Job:
    """Return the job as it is now, in the view FULL."""
    read = await call.GetJob(job_id=job.id, user_id=job.user_id, view=FULL)
    found: job_pb2.Job = read.job
    return found


def job_in(packed: Any) -> job_pb2.Job:
    """Unpack a Job; anything else is an error."""
    job = job_pb2.Job()
    assert packed.Unpack(job), packed.type_url
    return job
