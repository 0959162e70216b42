"""google-api-core's own clients and futures, unchanged, against the server as a process."""

import os
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.api_core import exceptions, operation, operation_async
from google.api_core.operations_v1 import OperationsAsyncClient, OperationsClient
from google.api_core.retry import AsyncRetry, Retry
from google.protobuf.struct_pb2 import Struct

from jobledger import Client, JobError
from jobledger.v1 import job_pb2
from tests.support.forked import Piped
from tests.support.pages import ROOT, blocks
from tests.support.server_process import ServerProcess

OWNER = [("x-jobledger-user", "ada")]
OFTEN = {"initial": 0.05, "maximum": 0.1, "timeout": 60}
"""The interval of polls: the default of a second and more would make these tests slow."""


@pytest.fixture
def operations(server: ServerProcess) -> Iterator[OperationsClient]:
    with grpc.insecure_channel(server.target) as channel:
        yield OperationsClient(channel)


def future_of(operations: OperationsClient, job: job_pb2.Job) -> operation.Operation:
    """Make a future of a job, as a program would that has its id."""
    return operation.from_gapic(
        operations.get_operation(f"jobs/{job.id}", metadata=OWNER),
        operations,
        job_pb2.Job,
        metadata_type=job_pb2.Job,
        grpc_metadata=OWNER,
        polling=Retry(predicate=operation.polling.POLLING_PREDICATE, **OFTEN),
    )


def test_result_is_the_job_once_it_has_completed(ada: Client, operations: OperationsClient) -> None:
    job = ada.start_job(ada.create_job("render", {"frames": 240}).id)
    future = future_of(operations, job)
    assert not future.done()
    assert future.running()
    assert future.metadata == ada.get_job(job.id).to_proto()
    ada.mark_completed(job.id, {"pages": 4}, attempt=1)
    ended = ada.get_job(job.id).to_proto()
    assert future.result(timeout=30) == ended
    assert future.exception() is None
    assert (future.done(), future.cancelled()) == (True, False)
    assert future.metadata == ended


def test_a_failed_job_is_an_exception_with_its_reason_and_details(
    ada: Client, operations: OperationsClient
) -> None:
    job = ada.start_job(ada.create_job("render").id)
    error = JobError("in words", reason="NO_SUCH_FONT", details={"font": "Ü"})
    ada.mark_failed(job.id, error=error, attempt=1)
    future = future_of(operations, job)
    with pytest.raises(exceptions.Unknown) as caught:
        future.result(timeout=30)
    assert type(caught.value) is type(future.exception(timeout=30)) is exceptions.Unknown
    assert caught.value.message == "in words"
    (status,) = caught.value.errors
    assert operation.protobuf_helpers.from_any_pb(Struct, status.details[1])["font"] == "Ü"
    assert future.metadata == ada.get_job(job.id).to_proto()
    assert future.metadata.error.reason == "NO_SUCH_FONT"
    assert not future.cancelled()


def test_a_cancelled_job_is_a_cancelled_future(ada: Client, operations: OperationsClient) -> None:
    job = ada.create_job("render")
    ada.cancel_job(job.id, reason="in words")
    future = future_of(operations, job.to_proto())
    with pytest.raises(exceptions.Cancelled) as caught:
        future.result(timeout=30)
    assert caught.value.message == "in words"
    assert future.metadata.error.reason == "CANCELLED"
    assert future.cancelled()


def test_the_google_client_lists_all_pages(ada: Client, operations: OperationsClient) -> None:
    ids = [ada.create_job("paged").id for _ in range(60)]
    listed = operations.list_operations(
        "jobs", 'metadata.job_type="paged" AND done=false', metadata=OWNER
    )
    assert [each.name for each in listed] == [f"jobs/{job_id}" for job_id in reversed(ids)]
    assert listed.page_number == 2


async def test_the_asynchronous_google_future_returns_the_result(
    server: ServerProcess, ada: Client
) -> None:
    job = ada.start_job(ada.create_job("render").id)
    async with grpc.aio.insecure_channel(server.target) as channel:
        operations = OperationsAsyncClient(channel)
        future: Any = operation_async.from_gapic(
            await operations.get_operation(f"jobs/{job.id}", metadata=OWNER),
            operations,
            job_pb2.Job,
            metadata_type=job_pb2.Job,
            grpc_metadata=OWNER,
            retry=AsyncRetry(predicate=operation_async.async_future.RETRY_PREDICATE, **OFTEN),
        )
        assert not await future.done()
        ada.mark_completed(job.id, attempt=1)
        ended = ada.get_job(job.id).to_proto()
        assert await future.result(timeout=30) == ended
        assert future.metadata == ended


def test_a_future_outlives_its_server(own_server: ServerProcess) -> None:
    """Polling continues at the next server: each poll is repeated until it is answered."""
    with grpc.insecure_channel(own_server.target) as channel:
        with Client(own_server.target, user_id="ada") as ada:
            job = ada.start_job(ada.create_job("render").id)
        future, done = future_of(OperationsClient(channel), job), threading.Event()
        future.add_done_callback(lambda _: done.set())
        own_server.restart()
        assert not done.is_set()
        with Client(own_server.target, user_id="ada") as ada:
            ada.mark_completed(job.id, attempt=1)
            ended = ada.get_job(job.id).to_proto()
        assert done.wait(60)
        assert future.result() == ended


def test_the_program_of_the_page_waits_for_its_job(server: ServerProcess, ada: Client) -> None:
    (page,) = blocks(ROOT / "docs/guides/longrunning.md", "python")
    program = page.text.replace("127.0.0.1:50051", server.target)
    running = Piped("python", [program], env=os.environ)
    (job,) = ada.claim_jobs(["report"], wait=30)
    ada.mark_completed(job.id, {"pages": 4}, attempt=job.attempt)
    said, error = running.communicate(timeout=60)
    assert running.returncode == 0, error
    assert said is not None
    assert said.splitlines()[-1] == "{'pages': 4.0}"
