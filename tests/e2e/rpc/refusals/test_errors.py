"""Each row of the table of errors, decoded from a real answer."""

import logging
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from jobledger.v1 import job_service_pb2
from jobledger_server.app import App
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.sql_store import SqlStore
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import COMPLETED, FAILED, PROCESSING, QUEUED, Caller, refusal

FOREIGN_CALLS = [
    ("GetJob", {}),
    ("WatchJob", {}),
    ("CancelJob", {}),
    ("DeleteJob", {}),
    ("ListAssets", {}),
    ("ListTransitions", {}),
    ("ListAttempts", {}),
    ("ReadOutput", {}),
    ("WatchOutput", {}),
]


async def answer(call: Caller, method: str, **fields: Any) -> Any:
    called = getattr(call, method)(**fields)
    return await (called.read() if method.startswith("Watch") else called)


async def test_a_bad_field_names_every_violation_not_just_the_first(call: Caller) -> None:
    refused = await refusal(
        call.CreateJob(user_id="", job_type="no spaces", labels={"": "x"}, request_id="x" * 129)
    )
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    violations = refused.details["BadRequest"].field_violations
    assert [v.field for v in violations] == ["user_id", "job_type", "labels", "request_id"]
    assert all(v.description for v in violations)


@in_turn(("method", "fields"), FOREIGN_CALLS)
async def test_an_absent_job_and_another_owners_job_give_identical_answers(
    call: Caller, method: str, fields: dict[str, Any]
) -> None:
    job = await call.ended()

    async def raw(user_id: str) -> tuple[Any, ...]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer(call, method, job_id=job.id, user_id=user_id, **fields)
        error = caught.value
        return error.code(), error.details(), tuple(error.trailing_metadata())

    foreign = await raw("eve")
    await call.DeleteJob(job_id=job.id, user_id="ada")
    assert await raw("ada") == foreign == await raw("eve")
    refused = await refusal(answer(call, method, job_id=job.id, user_id="eve"))
    assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    assert refused.details["ResourceInfo"].resource_name == job.id
    assert refused.details["ResourceInfo"].resource_type == "jobledger.v1.Job"


async def test_a_transition_that_is_not_in_the_table_is_refused(call: Caller) -> None:
    job = await call.job()
    refused = await refusal(
        call.TransitionJob(job_id=job.id, any_attempt=True, target_status=COMPLETED)
    )
    assert (refused.code, refused.reason) == (
        StatusCode.FAILED_PRECONDITION,
        "ILLEGAL_TRANSITION",
    )
    assert refused.metadata == {
        "job_id": job.id,
        "current": "QUEUED",
        "target": "COMPLETED",
        "allowed": "PROCESSING",
    }
    (violation,) = refused.details["PreconditionFailure"].violations
    assert (violation.type, violation.subject) == ("ILLEGAL_TRANSITION", job.id)
    job = await call.running()
    refused = await refusal(call.TransitionJob(job_id=job.id, target_status=QUEUED))
    assert refused.metadata["allowed"] == "COMPLETED,PARTIAL,FAILED"
    refused = await refusal(call.DeleteJob(job_id=job.id, user_id="ada"))
    assert refused.metadata["target"] == "DELETED"
    assert (
        refused.message == f"job {job.id} is PROCESSING; only a job that has ended can be deleted"
    )


async def test_a_report_on_a_terminal_job_is_refused(call: Caller) -> None:
    job = await call.ended()
    error = {"message": "no"}
    for called in (
        call.TransitionJob(job_id=job.id, target_status=PROCESSING),
        call.MarkFailed(job_id=job.id, attempt=1, finish={"error": error}),
        call.TransitionJob(job_id=job.id, attempt=1, target_status=FAILED, finish={"error": error}),
    ):
        refused = await refusal(called)
        assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "JOB_TERMINAL")
        assert refused.metadata["current"] == "COMPLETED"
        assert refused.metadata["allowed"] == ""
        assert refused.details["PreconditionFailure"].violations[0].type == "JOB_TERMINAL"


@in_turn(
    ("method", "fields"),
    [
        ("TransitionJob", {"target_status": COMPLETED}),
        ("UpdateProgress", {"progress": {"progress": 50}}),
        ("MarkCompleted", {}),
        ("MarkPartial", {}),
        ("MarkFailed", {"finish": {"error": {"message": "no"}}}),
        ("CreateAsset", {"asset": {"asset": {"asset_type": "t", "storage_path": "p"}}}),
    ],
)
async def test_a_report_with_a_stale_attempt_is_refused(
    call: Caller, method: str, fields: dict[str, Any]
) -> None:
    job = await call.running()
    refused = await refusal(getattr(call, method)(job_id=job.id, attempt=0, **fields))
    assert (refused.code, refused.reason) == (StatusCode.ABORTED, "LEASE_LOST")
    assert refused.metadata == {"job_id": job.id, "attempt": "1"}
    assert (await call.GetJob(job_id=job.id, user_id="ada")).job == job


async def test_a_report_with_another_version_than_expected_is_refused(call: Caller) -> None:
    job = await call.running()
    refused = await refusal(
        call.TransitionJob(job_id=job.id, attempt=1, target_status=COMPLETED, expected_version=1)
    )
    assert (refused.code, refused.reason) == (StatusCode.ABORTED, "VERSION_MISMATCH")
    assert refused.metadata == {"job_id": job.id, "version": "2"}


async def test_a_request_id_used_for_something_else(call: Caller) -> None:
    job = await call.job(request_id="r")
    refused = await refusal(call.CreateJob(user_id="ada", job_type="other", request_id="r"))
    assert (refused.code, refused.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert refused.details["ResourceInfo"].resource_name == job.id
    job = await call.running()
    asset = (
        await call.CreateAsset(
            job_id=job.id,
            attempt=1,
            asset={"asset": {"asset_type": "t", "storage_path": "p"}, "request_id": "r"},
        )
    ).asset
    refused = await refusal(
        call.CreateAsset(
            job_id=job.id,
            attempt=1,
            asset={"asset": {"asset_type": "t", "storage_path": "q"}, "request_id": "r"},
        )
    )
    assert refused.reason == "REQUEST_ID_REUSED"
    assert refused.details["ResourceInfo"].resource_name == asset.id
    assert refused.details["ResourceInfo"].resource_type == "jobledger.v1.Asset"


@in_turn("key", ["bad key {}", "\U0001f600" * 60 + "{}", "%" * 60 + "{}"])
async def test_a_status_names_as_many_violations_as_fit(call: Caller, key: str) -> None:
    """Clients drop trailers larger than 8 KiB, and the violations with them."""
    labels = {key.format(n)[:250]: "" for n in range(32)}
    requests = [job_service_pb2.CreateJobRequest(labels=labels)] * 100
    refused = await refusal(call.BatchCreateJobs(user_id="ada", requests=requests))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    named = refused.details["BadRequest"].field_violations
    assert 1 <= len(named) <= 20
    assert named[0].field == "requests[0].job_type"
    assert int(refused.metadata["more"]) == 100 * 33 - len(named)
    assert refused.message.endswith(f"and {refused.metadata['more']} more")


async def test_a_programming_error_is_reported_by_its_id_only_and_logged_in_full(
    call: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise KeyError("a secret of the inside")

    monkeypatch.setattr(Ledger, "submit", broken)
    monkeypatch.setattr(SqlStore, "list_jobs", broken)
    for method, fields in (("CreateJob", {"job_type": "t"}), ("ListJobs", {})):
        caplog.clear()
        with caplog.at_level(logging.ERROR, logger="jobledger.rpc"):
            refused = await refusal(getattr(call, method)(user_id="ada", **fields))
        assert (refused.code, refused.reason) == (StatusCode.INTERNAL, "INTERNAL")
        assert "secret" not in refused.message
        assert set(refused.metadata) == {"correlation_id"}
        (record,) = caplog.records
        assert record.correlation_id == refused.metadata["correlation_id"]
        assert "a secret of the inside" in str(record.exc_info)


async def test_an_unknown_method_is_unimplemented(app: App) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel:
        method = channel.unary_unary("/jobledger.v1.JobService/DoMagic")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(b"")
    assert caught.value.code() is StatusCode.UNIMPLEMENTED
