"""Both sides tolerate what a newer peer sends that this version does not know."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from jobledger import Client, JobledgerError, JobStatus
from jobledger.v1.job_pb2 import JOB_STATUS_COMPLETED, Job
from jobledger.v1.job_service_pb2 import (
    CreateJobRequest,
    GetJobResponse,
    ListJobsResponse,
    WatchJobResponse,
)
from jobledger.v1.job_service_pb2_grpc import (
    JobServiceServicer,
    JobServiceStub,
    add_JobServiceServicer_to_server,
)
from tests.support.rpc_caller import Caller, refusal

FUTURE_STATUS = 99
# Field 1000 with the varint 7, field 1001 with the bytes "new".
FUTURE_FIELDS = b"\xc0\x3e\x07\xca\x3e\x03new"


def with_future_fields(message: Any) -> Any:
    newer = type(message).FromString(message.SerializeToString() + FUTURE_FIELDS)
    assert newer.ByteSize() == message.ByteSize() + len(FUTURE_FIELDS)
    return newer


# --- the server, called by newer clients ---------------------------------------------------------


async def test_the_server_ignores_fields_that_it_does_not_know(call: Caller, app: Any) -> None:
    request = CreateJobRequest(user_id="ada", job_type="render", request_id="r")
    request.parameters["n"] = 1
    async with grpc.aio.insecure_channel(app.address) as channel:
        create = JobServiceStub(channel).CreateJob
        newer = (await create(with_future_fields(request))).job
        # To this version they are the same call.
        assert (await create(request)).job == newer
    read = await call.GetJob(job_id=newer.id, user_id="ada", view="JOB_VIEW_BASIC")
    assert read.job == newer


async def test_the_server_names_the_field_of_an_enum_value_that_it_does_not_know(
    call: Caller,
) -> None:
    job = await call.job()
    for awaitable, field in (
        (
            call.ListJobs(user_id="ada", filter={"statuses": [FUTURE_STATUS]}),
            "filter.statuses",
        ),
        (call.GetJob(job_id=job.id, user_id="ada", view=FUTURE_STATUS), "view"),
        (call.TransitionJob(job_id=job.id, target_status=FUTURE_STATUS), "target_status"),
    ):
        error = await refusal(awaitable)
        assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
        assert [v.field for v in error.details["BadRequest"].field_violations] == [field]
    assert (await call.GetJob(job_id=job.id, user_id="ada")).job == job


# --- the client, answered by newer servers -------------------------------------------------------


class NewerServer(JobServiceServicer):
    """Answers with a status, fields, an error reason and a detail that are yet to come."""

    def GetJob(self, request: Any, context: grpc.ServicerContext) -> GetJobResponse:  # noqa: N802
        if request.job_id == "gone":
            context.abort_with_status(rpc_status.to_status(newer_refusal()))
        return GetJobResponse(job=newer_job(2))

    def ListJobs(self, request: Any, context: Any) -> ListJobsResponse:  # noqa: N802
        return ListJobsResponse(jobs=[newer_job(2)])

    def WatchJob(self, request: Any, context: Any) -> Iterator[WatchJobResponse]:  # noqa: N802
        yield with_future_fields(WatchJobResponse(job=newer_job(2)))
        ended = newer_job(3)
        ended.status = JOB_STATUS_COMPLETED
        yield with_future_fields(WatchJobResponse(job=ended))


def newer_job(version: int) -> Job:
    job = Job(id="j", user_id="ada", version=version)
    job.status = FUTURE_STATUS
    return with_future_fields(job)


def newer_refusal() -> status_pb2.Status:
    status = status_pb2.Status(code=grpc.StatusCode.ABORTED.value[0], message="not today")
    info = error_details_pb2.ErrorInfo(domain="jobledger", reason="MOON_PHASE")
    info.metadata["phase"] = "full"
    status.details.add().Pack(info)
    status.details.append(AnyMessage(type_url="example.com/of.the.Future", value=b"\xff"))
    return status


@pytest.fixture
def client() -> Iterator[Client]:
    server = grpc.server(ThreadPoolExecutor(4))
    add_JobServiceServicer_to_server(NewerServer(), server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with Client(target, user_id="ada") as client:
        yield client
    server.stop(0).wait()


def test_a_status_that_the_client_does_not_know_is_unknown(client: Client) -> None:
    assert client.get_job("j").status is JobStatus.UNKNOWN
    assert [job.status for job in client.list_jobs()] == [JobStatus.UNKNOWN]


def test_an_unknown_status_does_not_end_a_watch(client: Client) -> None:
    seen = [(message.job.version, message.job.status) for message in client.watch("j")]
    assert seen == [(2, JobStatus.UNKNOWN), (3, JobStatus.COMPLETED)]


def test_a_refusal_for_a_reason_that_the_client_does_not_know_keeps_its_facts(
    client: Client,
) -> None:
    with pytest.raises(JobledgerError, match="not today") as caught:
        client.get_job("gone")
    assert caught.value.code is grpc.StatusCode.ABORTED
    assert (caught.value.reason, dict(caught.value.metadata)) == ("MOON_PHASE", {"phase": "full"})
