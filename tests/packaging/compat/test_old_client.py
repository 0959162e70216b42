"""A client made from earlier protos goes on working with the server of today."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.packaging.compat.old_client import OldClient
from tests.support.rpc_caller import decoded
from tests.support.server_process import ServerProcess

SETS = sorted(Path(__file__).parent.glob("*.binpb"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(params=SETS, ids=[file.stem for file in SETS])
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[OldClient]:
    with grpc.insecure_channel(server.target) as channel:
        yield OldClient(request.param, channel)


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """A type of jobs of this test's own."""
    return f"k{uuid.uuid4().hex}"


def test_an_old_client_takes_a_job_from_creation_to_partial(client: OldClient, kind: str) -> None:
    facts = {"user_id": "ada", "job_type": kind, "request_id": kind, "labels": {"a": "b"}}
    job = client.CreateJob(**facts).job
    assert client.CreateJob(**facts).job == job
    watch = client.WatchJob(job_id=job.id, user_id="ada")
    assert next(watch).job == job

    (claimed,) = client.ClaimJobs(worker_id="w", job_types=[kind]).jobs
    assert (claimed.id, claimed.attempt) == (job.id, 1)
    held = {"job_id": job.id, "attempt": 1}
    assert client.UpdateProgress(
        progress={"progress": 50, "progress_message": "half"}, **held
    ).applied
    asset = client.CreateAsset(
        asset={"asset": {"asset_type": "image/png", "storage_path": "p", "file_size": 2**53 + 1}},
        **held,
    ).asset
    error = {"reason": "SOME_MISSING", "message": "1 of 2"}
    ended = client.MarkPartial(finish={"error": error}, **held).job

    seen = list(watch)
    assert [message.job.version for message in seen] == sorted({m.job.version for m in seen})
    read = client.GetJob(job_id=job.id, user_id="ada").job
    assert seen[-1].job == read
    assert (read.version, read.request_id, ended.request_id) == (ended.version, kind, "")
    assert ended.status == client.number("JOB_STATUS_PARTIAL")
    assert [s.to_status for m in seen for s in m.transitions] == [
        client.number("JOB_STATUS_PROCESSING"),
        client.number("JOB_STATUS_PARTIAL"),
    ]
    assert list(client.ListAssets(job_id=job.id, user_id="ada").assets) == [asset]
    assert asset.file_size == 2**53 + 1


def test_an_old_client_resumes_a_watch_after_a_version(client: OldClient, kind: str) -> None:
    job = client.CreateJob(user_id="ada", job_type=kind).job
    (claimed,) = client.ClaimJobs(worker_id="w", job_types=[kind]).jobs
    client.MarkCompleted(job_id=job.id, attempt=1, finish={"result": {"n": 1}})
    ended = client.GetJob(job_id=job.id, user_id="ada").job
    assert ended.result["n"] == 1
    (message,) = client.WatchJob(job_id=job.id, user_id="ada", after_version=claimed.version)
    assert message.job == ended
    assert [step.version for step in message.transitions] == [ended.version]


def test_an_old_client_lists_page_by_page(client: OldClient, kind: str) -> None:
    made = [client.CreateJob(user_id=kind, job_type=kind).job for _ in range(3)]
    first = client.ListJobs(user_id=kind, page_size=2)
    second = client.ListJobs(user_id=kind, page_size=2, page_token=first.next_page_token)
    assert [*first.jobs, *second.jobs] == made[::-1]
    assert second.next_page_token == ""


@pytest.mark.parametrize(
    ("call", "fields", "code", "reason"),
    [
        ("GetJob", {"user_id": "eve"}, "NOT_FOUND", "JOB_NOT_FOUND"),
        ("MarkCompleted", {"any_attempt": True}, "FAILED_PRECONDITION", "ILLEGAL_TRANSITION"),
        (
            "UpdateProgress",
            {"attempt": 1, "progress": {"progress": 101}},
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
        ),
    ],
)
def test_an_old_client_gets_the_code_and_reason_of_a_refusal(
    client: OldClient, kind: str, call: str, fields: dict[str, object], code: str, reason: str
) -> None:
    job = client.CreateJob(user_id="ada", job_type=kind).job
    with pytest.raises(grpc.RpcError) as caught:
        getattr(client, call)(job_id=job.id, **fields)
    refusal = decoded(caught.value)
    assert (refusal.code.name, refusal.reason) == (code, reason)


def test_an_old_client_cancels_and_deletes(client: OldClient, kind: str) -> None:
    job = client.CreateJob(user_id="ada", job_type=kind).job
    cancelled = client.CancelJob(job_id=job.id, user_id="ada", reason="no need").job
    assert cancelled.status == client.number("JOB_STATUS_FAILED")
    client.DeleteJob(job_id=job.id, user_id="ada")
    with pytest.raises(grpc.RpcError, match="has no job"):
        client.GetJob(job_id=job.id, user_id="ada")
