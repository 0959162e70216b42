"""Who may call what, in whose name."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1 import worker_service_pb2 as workers
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_server.rpc.access import (
    Access,
    BadAccessFile,
    Permissions,
    read_access_file,
)
from jobledger_server.rpc.work_limits import AccessDenied
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import decoded

CALLERS = f"""
[[caller]]
name = "web"
token_sha256 = "{hashlib.sha256(b"web-token").hexdigest()}"
services = ["JobService"]
users = ["ada", "bob"]

[[caller]]
name = "worker"
token_sha256 = "{hashlib.sha256(b"worker-token").hexdigest()}"
services = ["WorkerService"]

[[caller]]
name = "admin"
token_sha256 = "{hashlib.sha256(b"admin-token").hexdigest()}"
users = ["*"]
"""

Ask = Callable[..., Any]


@pytest.fixture
async def ask(start: Any, tmp_path: Path) -> Any:
    """Make a call with a token; return None or the refusal."""
    file = tmp_path / "access.toml"
    file.write_text(CALLERS)
    app = await start(access=file)
    async with grpc.aio.insecure_channel(app.address) as channel:

        async def ask(authorization: str | None, what: str, user_id: str = "ada") -> Any:
            metadata = [] if authorization is None else [("authorization", authorization)]
            if what == "create":
                request = jobs.CreateJobRequest(user_id=user_id, job_type="t")
                called = JobServiceStub(channel).CreateJob(request, metadata=metadata)
            elif what == "watch":
                request = jobs.WatchJobRequest(user_id=user_id, job_id="nowhere")
                called = JobServiceStub(channel).WatchJob(request, metadata=metadata).read()
            elif what == "list":
                listing = jobs.ListJobsRequest(user_id=user_id)
                called = JobServiceStub(channel).ListJobs(listing, metadata=metadata)
            elif what == "watch many":
                many = jobs.WatchJobsRequest(user_id=user_id)
                called = JobServiceStub(channel).WatchJobs(many, metadata=metadata).read()
            else:
                request = workers.UpdateProgressRequest(job_id="nowhere")
                called = WorkerServiceStub(channel).UpdateProgress(request, metadata=metadata)
            try:
                await called
            except grpc.aio.AioRpcError as error:
                return decoded(error)

        yield ask


@in_turn(
    ("authorization", "what", "user_id"),
    [
        (None, "create", "ada"),
        (None, "work", "ada"),
        ("Bearer wrong", "create", "ada"),
        ("Bearer ", "create", "ada"),
        ("Bearer", "create", "ada"),
        ("Basic web-token", "create", "ada"),
        ("web-token", "create", "ada"),
        ("Bearer web-token", "create", "eve"),
        ("Bearer web-token", "watch", "eve"),
        ("Bearer web-token", "watch many", "eve"),
        ("Bearer web-token", "watch many", ""),
        ("Bearer web-token", "list", "eve"),
        ("Bearer web-token", "list", ""),
        ("Bearer worker-token", "watch many", "ada"),
        (None, "watch many", ""),
        ("Bearer web-token", "work", "ada"),
        ("Bearer worker-token", "create", "ada"),
    ],
)
async def test_what_a_caller_may_not_do_is_denied(
    ask: Ask, authorization: str | None, what: str, user_id: str
) -> None:
    refused = await ask(authorization, what, user_id)
    assert (refused.code, refused.reason) == (StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")


@in_turn(
    ("authorization", "what", "user_id", "answer"),
    [
        ("Bearer web-token", "create", "ada", None),
        ("bearer web-token", "create", "bob", None),
        ("Bearer web-token", "watch", "bob", "JOB_NOT_FOUND"),
        ("Bearer web-token", "create", "", "INVALID_FIELD"),
        ("Bearer worker-token", "work", "", "JOB_NOT_FOUND"),
        ("Bearer admin-token", "create", "eve", None),
        ("Bearer web-token", "watch many", "ada", None),
        ("Bearer admin-token", "watch many", "eve", None),
        ("Bearer admin-token", "watch many", "", None),
        ("Bearer web-token", "list", "bob", None),
        ("Bearer admin-token", "list", "", None),
        ("Bearer admin-token", "work", "", "JOB_NOT_FOUND"),
    ],
)
async def test_what_a_caller_may_do_goes_through(
    ask: Ask, authorization: str, what: str, user_id: str, answer: str | None
) -> None:
    refused = await ask(authorization, what, user_id)
    assert (refused and refused.reason) == answer


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no"),
        ("not toml", "cannot read"),
        ("[[caller]]", "needs a `name`"),
        ("[caller]\nname = 'a'", r"write \[\[caller\]\]"),
        ("caller = ['a']", r"write \[\[caller\]\]"),
        ("[[caller]]\nname = 'a'", "needs `token_sha256`"),
        ("[[caller]]\nname = 'a'\ntoken_sha256 = 'abc'", "needs `token_sha256`"),
        (f"[[caller]]\nname='a'\ntoken_sha256='{'0' * 64}'\nservices=['Job']", "services are"),
        (f"[[caller]]\nname='a'\ntoken_sha256='{'0' * 64}'\nusers='ada'", "list of strings"),
        (f"[[caller]]\nname='a'\ntoken_sha256='{'0' * 64}'\nuser=['ada']", "unknown key `user`"),
        (f"[[caller]]\nname='a'\ntoken_sha256='{'0' * 64}'\njob_types=[]", "must name types"),
        (f"[[caller]]\nname='a'\ntoken_sha256='{'0' * 64}'\njob_types=['*']", "must name types"),
        (f"[[caller]]\nname='a'\ntoken_sha256='{'0' * 64}'\nfencing=true", "fencing is"),
        (f"[[caller]]\nname='a'\ntoken_sha256='{'0' * 64}'\n" * 2, "the same token"),
        (f"[[caller]]\nname='a'\ntoken_sha256='{hashlib.sha256().hexdigest()}'", "empty token"),
    ],
)
def test_a_bad_file_is_refused_in_words(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "access.toml"
    file.write_text(content)
    with pytest.raises(BadAccessFile, match=words):
        read_access_file(file)


def test_a_file_that_is_not_there_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(BadAccessFile, match="cannot read the access file"):
        read_access_file(tmp_path / "nowhere.toml")


def test_an_empty_token_is_nobodys_even_if_its_hash_were_known() -> None:
    caller = Permissions("a", frozenset({"JobService"}), frozenset({"*"}))
    access = Access({hashlib.sha256().digest(): caller})
    for value in ("Bearer", "Bearer ", "bearer"):
        with pytest.raises(AccessDenied):
            access.permissions([("authorization", value)], "/jobledger.v1.JobService/GetJob")
