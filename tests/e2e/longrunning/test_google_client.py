"""google-api-core's own clients and futures, unchanged, against the server as a process."""

import os
from collections.abc import Iterator

import grpc
import pytest
from google.api_core import exceptions, operation
from google.api_core.operations_v1 import OperationsClient
from google.api_core.retry import Retry
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
