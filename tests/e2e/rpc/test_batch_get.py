"""BatchGetJobs: some jobs of one owner, in the order of the request, and which are missing."""

from typing import Any

import pytest
from grpc import StatusCode

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.app import App
from jobledger_server.domain.limits import MAX_ANSWER_BYTES
from tests.support.rpc_caller import BASIC, BIG_LABELS, FULL, Caller, refusal


async def test_jobs_come_in_the_order_of_the_request_and_missing_ones_are_named(
    call: Caller,
) -> None:
    one, two = await call.job(parameters={"n": 1}), await call.job(parameters={"n": 2})
    foreign = await call.job(user_id="bob")
    deleted = await call.ended()
    await call.DeleteJob(job_id=deleted.id, user_id="ada")
    ids = [two.id, deleted.id, foreign.id, one.id, "nowhere"]
    for view in (0, BASIC):
        answer = await call.BatchGetJobs(user_id="ada", job_ids=ids, view=view)
        assert list(answer.jobs) == [two, one]
        assert list(answer.missing_job_ids) == [deleted.id, foreign.id, "nowhere"]
    full = await call.BatchGetJobs(user_id="ada", job_ids=ids, view=FULL)
    assert [job.parameters["n"] for job in full.jobs] == [2, 1]
    assert list(full.missing_job_ids) == list(answer.missing_job_ids)


async def test_more_than_fits_an_answer_is_refused_before_payloads_are_read(
    app: App, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that gets LIMIT_EXCEEDED requests fewer."""
    full_reads: list[int] = []
    read_jobs = app.store.read_jobs

    async def noted(ids: Any, *, full: bool) -> Any:
        if full:
            full_reads.append(len(ids))
        return await read_jobs(ids, full=full)

    monkeypatch.setattr(app.store, "read_jobs", noted)
    ids = [(await call.job(parameters={"pad": "x" * 250_000})).id for _ in range(13)]
    refused = await refusal(call.BatchGetJobs(user_id="ada", job_ids=ids, view=FULL))
    assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert refused.metadata == {
        "limit": "answer_bytes",
        "value": str(MAX_ANSWER_BYTES),
        "scope": "request",
    }
    assert "RetryInfo" not in refused.details
    assert not full_reads
    answer = await call.BatchGetJobs(user_id="ada", job_ids=ids[:12], view=FULL)
    assert [job.id for job in answer.jobs] == ids[:12]
    assert len((await call.BatchGetJobs(user_id="ada", job_ids=ids)).jobs) == 13


async def test_labels_count_as_well(call: Caller) -> None:
    request = pb.CreateJobRequest(job_type="render", labels=BIG_LABELS)
    ids: list[str] = []
    for _ in range(4):
        answer = await call.BatchCreateJobs(user_id="ada", requests=[request] * 25)
        ids += [job.id for job in answer.jobs]
    refused = await refusal(call.BatchGetJobs(user_id="ada", job_ids=ids))
    assert refused.reason == "LIMIT_EXCEEDED"
    assert len((await call.BatchGetJobs(user_id="ada", job_ids=ids[:80])).jobs) == 80
