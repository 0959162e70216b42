"""RerunJobs, CancelJobs and DeleteJobs: many jobs by a filter, in bounded steps."""

import asyncio
import time
from collections import Counter
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.admission.caller import SERVICE
from jobledger_server.app import App
from jobledger_server.domain.limits import MAX_ANSWER_BYTES, MAX_SCANNED_JOBS
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.rpc.jobs import bulk_requests
from jobledger_server.rpc.tokens import token
from jobledger_server.sql.database import Database
from jobledger_server.store import StoreUnavailable
from jobledger_server.tuning import Tuning
from tests.support.databases import both_databases, several_servers
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import (
    FAILED,
    FULL,
    PROCESSING,
    QUEUED,
    TOO_SLOW,
    Caller,
    calling,
    policy,
    refusal,
)
from tests.support.seeding import seed

METHODS = ["RerunJobs", "CancelJobs", "DeleteJobs"]


async def failed(
    call: Caller, user_id: str = "ada", reason: str = "DISK_FULL", **fields: Any
) -> Any:
    job = await call.running(user_id=user_id, **fields)
    error = {"reason": reason, "message": "no"}
    return (await call.MarkFailed(job_id=job.id, attempt=1, finish={"error": error})).job


async def listed(
    call: Caller, user_id: str = "ada", *, view: Any = None, **filters: Any
) -> list[Any]:
    """Return all jobs that match, newest first."""
    found: list[Any] = []
    page_token = ""
    while True:
        page = await call.ListJobs(
            user_id=user_id, page_size=1000, page_token=page_token, view=view, filter=filters
        )
        found += page.jobs
        if not (page_token := page.next_page_token):
            return found


async def steps(call: Caller, method: str, **fields: Any) -> list[Any]:
    """Call a method until it is done, for all jobs without a filter; return its answers."""
    fields.setdefault("all", not fields.get("filter"))
    answers: list[Any] = []
    page_token = ""
    while True:
        answer = await getattr(call, method)(page_token=page_token, **fields)
        assert answer.done is (answer.next_page_token == "")
        answers.append(answer)
        if answer.done:
            return answers
        page_token = answer.next_page_token


def total(answers: list[Any]) -> tuple[int, int]:
    """Return how many jobs were matched and changed."""
    return sum(each.matched for each in answers), sum(each.changed for each in answers)


# --- one step after the other --------------------------------------------------------------------


@both_databases
async def test_failed_jobs_are_repeated_step_by_step_newest_first(call: Caller) -> None:
    jobs = [await failed(call, parameters={"n": n}, retry_policy=policy(2)) for n in range(5)]
    other = [await failed(call, reason="NO_FONT"), await call.ended(), await call.running()]
    answers = await steps(
        call, "RerunJobs", user_id="ada", filter={"error_reasons": ["DISK_FULL"]}, max_jobs=2
    )
    assert [(each.matched, each.changed) for each in answers] == [(2, 2), (2, 2), (1, 1)]
    made = [job for answer in answers for job in answer.sample]
    assert [job.origin_job_id for job in made] == [job.id for job in reversed(jobs)]
    assert {job.status for job in made} == {QUEUED}
    full = await listed(call, statuses=[QUEUED], view=FULL)
    assert {job.origin_job_id: job.parameters["n"] for job in full} == {
        job.id: n for n, job in enumerate(jobs)
    }
    assert {job.retry_policy.max_attempts for job in full} == {2}
    assert len(await listed(call)) == 5 + len(other) + 5
    # None of them matches again.
    (answer,) = await steps(
        call, "RerunJobs", user_id="ada", filter={"error_reasons": ["DISK_FULL"]}
    )
    assert (answer.matched, answer.changed, answer.done) == (0, 0, True)
    (answer,) = await steps(call, "RerunJobs", user_id="ada")
    assert [job.origin_job_id for job in answer.sample] == [other[0].id]


async def test_jobs_are_cancelled_step_by_step(call: Caller) -> None:
    queued = [await call.job() for _ in range(3)]
    waits = await call.running()
    await call.ReleaseJob(job_id=waits.id, attempt=1)
    held, ended = await call.running(), await call.ended()
    asked = await call.running()
    await call.CancelJob(job_id=asked.id, user_id="ada")
    answers = await steps(call, "CancelJobs", user_id="ada", reason="no more", max_jobs=2)
    assert total(answers) == (5, 5)
    assert [job.id for answer in answers for job in answer.sample] == [
        job.id for job in (held, waits, *reversed(queued))
    ]
    for job in [*queued, waits]:
        found = (await call.GetJob(job_id=job.id, user_id="ada")).job
        assert (found.status, found.error.reason, found.error.message) == (
            FAILED,
            "CANCELLED",
            "no more",
        )
    found = (await call.GetJob(job_id=held.id, user_id="ada")).job
    assert (found.status, found.cancel_reason) == (PROCESSING, "no more")
    assert (await call.GetJob(job_id=ended.id, user_id="ada")).job == ended
    (again,) = await steps(call, "CancelJobs", user_id="ada")
    assert (again.matched, again.changed) == (0, 0)


async def test_a_cancelled_job_says_so_and_is_run_again_only_if_it_is_named(call: Caller) -> None:
    broken, waiting, held, finished = (
        await failed(call),
        await call.job(),
        await call.running(),
        await call.running(),
    )
    for job in (waiting, held, finished):
        await call.CancelJob(job_id=job.id, user_id="ada")
    await call.ReleaseJob(job_id=held.id, attempt=1)
    await call.MarkCompleted(job_id=finished.id, attempt=1)  # in spite of the request
    cancelled = [held.id, waiting.id]
    assert {job.id for job in await listed(call) if job.cancelled} == {*cancelled}
    assert [job.id for job in await listed(call, cancelled=True)] == cancelled
    assert [job.id for job in await listed(call, cancelled=False)] == [finished.id, broken.id]
    for selected, expected in (
        ({"statuses": [FAILED]}, [broken.id]),
        ({"cancelled": False, "statuses": [FAILED]}, [broken.id]),
        ({"error_reasons": ["CANCELLED", "DISK_FULL"]}, [*cancelled, broken.id]),
        ({"cancelled": True}, cancelled),
    ):
        dry = await call.RerunJobs(user_id="ada", filter=selected, validate_only=True)
        assert [job.id for job in dry.sample] == expected, selected


@in_turn("method", METHODS)
async def test_all_jobs_are_changed_only_where_the_call_says_so(call: Caller, method: str) -> None:
    user_id = method
    await (call.job if method == "CancelJobs" else partial(failed, call))(user_id=user_id)
    for fields in ({}, {"filter": {}}, {"filter": {"held": False}, "all": True}):
        for validate_only in (True, False):
            refused = await refusal(
                getattr(call, method)(user_id=user_id, validate_only=validate_only, **fields)
            )
            (violation,) = refused.details["BadRequest"].field_violations
            assert (refused.reason, violation.field) == ("INVALID_FIELD", "filter")
    assert (await getattr(call, method)(user_id=user_id, filter={"held": False})).changed == 1


@in_turn("method", METHODS)
async def test_validate_only_changes_nothing_and_shows_the_first_jobs(
    app: App, call: Caller, method: str
) -> None:
    user_id = method
    make = call.job if method == "CancelJobs" else partial(failed, call)
    made = [await make(user_id=user_id) for _ in range(12)]
    before = await app.store.feed_head()
    answers = await steps(call, method, user_id=user_id, validate_only=True, max_jobs=11)
    assert [(each.matched, each.changed) for each in answers] == [(11, 0), (1, 0)]
    assert list(answers[0].sample) == made[:1:-1]  # the ten newest, in the view BASIC
    assert await app.store.feed_head() == before
    # By default a step has a hundred jobs.
    (answer,) = await steps(call, method, user_id=user_id)
    assert (answer.matched, answer.changed) == (12, 12)
    assert len(answer.sample) == (0 if method == "DeleteJobs" else 10)


async def test_the_jobs_of_all_users_are_changed_each_for_its_owner(call: Caller) -> None:
    jobs = [await failed(call, user) for user in ("ada", "bob", "ada", "eve")]
    answers = await steps(call, "RerunJobs", max_jobs=3)
    assert total(answers) == (4, 4)
    made = {job.origin_job_id: job.user_id for answer in answers for job in answer.sample}
    assert made == {job.id: job.user_id for job in jobs}
    assert total(await steps(call, "CancelJobs")) == (4, 4)
    assert total(await steps(call, "DeleteJobs")) == (8, 8)
    assert Counter([len(await listed(call, user)) for user in ("ada", "bob", "eve")]) == {0: 3}


async def test_a_step_that_is_repeated_repeats_no_job_twice(call: Caller) -> None:
    for _ in range(6):
        await failed(call)
    first = await call.RerunJobs(user_id="ada", all=True, max_jobs=2)
    lost = [
        await call.RerunJobs(user_id="ada", all=True, max_jobs=2) for _ in range(2)
    ]  # each goes on
    assert total([first, *lost]) == (6, 6)
    # And steps that run at once.
    request = pb.CreateJobRequest(job_type="many")
    await call.BatchCreateJobs(user_id="ada", requests=[request] * 40)
    await call.CancelJobs(user_id="ada", filter={"job_types": ["many"]})
    filters = {"cancelled": True}
    answers = await asyncio.gather(
        *(call.RerunJobs(user_id="ada", filter=filters) for _ in range(5))
    )
    assert sum(each.changed for each in answers) == 40
    origins = [job.origin_job_id for job in await listed(call) if job.origin_job_id]
    assert len(origins) == len(set(origins)) == 46


# --- bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [150, pytest.param(15_000, marks=pytest.mark.slow)])
async def test_fifteen_thousand_jobs_are_changed_in_bounded_steps(
    call: Caller, database: Database, *, count: int
) -> None:
    """Also for a caller that ignores `next_page_token`."""
    most = count // 15
    await seed(database, count)

    async def all_steps(method: str, **fields: Any) -> tuple[int, int]:
        answers: list[Any] = []
        calls = 0
        while not answers or not answers[-1].done:
            calls += 1
            assert calls <= 2 * 15
            fields |= {"user_id": "ada", "max_jobs": most}
            fields["all"] = "filter" not in fields
            try:
                answers.append(await getattr(call, method)(**fields))
            except AioRpcError as error:
                if error.details() != TOO_SLOW:
                    raise
                continue  # its list, which changed nothing
            assert max(answers[-1].matched, answers[-1].changed) <= most
        return total(answers)

    cancelled = {"cancelled": True}
    assert await all_steps("CancelJobs") == (count, count)
    assert await all_steps("RerunJobs", filter=cancelled) == (count, count)
    made = [job.origin_job_id for job in await listed(call) if job.origin_job_id]
    assert len(made) == len(set(made)) == count
    assert await all_steps("DeleteJobs", filter=cancelled) == (count, count)
    assert all(job.origin_job_id for job in await listed(call))


async def test_a_step_has_no_more_payloads_than_a_page(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[int] = []
    submit = Ledger.submit

    def noted(self: Ledger, commands: Any, caller: Any) -> Any:
        submitted.append(sum(len(each.parameters or b"") for each in commands))
        return submit(self, commands, caller)

    for _ in range(14):
        await failed(call, parameters={"text": "x" * 250_000})
    monkeypatch.setattr(Ledger, "submit", noted)
    answers = await steps(call, "RerunJobs", user_id="ada", max_jobs=1000)
    assert total(answers) == (14, 14)
    assert max(each.matched for each in answers) <= MAX_ANSWER_BYTES // 250_000
    assert sum(submitted) >= 14 * 250_000
    assert max(submitted) <= 1024 * 1024
    # What is only counted is not read.
    (dry,) = await steps(call, "DeleteJobs", user_id="ada", validate_only=True, max_jobs=1000)
    assert dry.matched == 14


@pytest.mark.parametrize("tuning", [Tuning(bulk_part=3)])
async def test_a_large_step_is_submitted_in_parts(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[int] = []
    submit = Ledger.submit

    def noted(self: Ledger, commands: Any, caller: Any) -> Any:
        if caller is not SERVICE:  # which reaps meanwhile
            submitted.append(len(commands))
        return submit(self, commands, caller)

    for _ in range(7):
        await call.job()
    monkeypatch.setattr(Ledger, "submit", noted)
    for method, selected in (
        ("CancelJobs", {}),
        ("RerunJobs", {"cancelled": True}),
        ("DeleteJobs", {}),
    ):
        (answer,) = await steps(call, method, user_id="ada", filter=selected)
        assert (answer.matched, answer.changed) == (7, 7)
    assert submitted == [3, 3, 1] * 3


async def test_a_step_looks_for_its_first_job_on_one_page_after_the_other(
    call: Caller, database: Database
) -> None:
    oldest = await failed(call)
    await seed(database, MAX_SCANNED_JOBS + 50)
    step = await call.RerunJobs(user_id="ada", all=True)
    assert (step.matched, step.done) == (1, True)
    assert step.sample[0].origin_job_id == oldest.id


@pytest.mark.parametrize("tuning", [Tuning(search_seconds=0)])
async def test_a_search_that_takes_too_long_ends_with_a_token(
    call: Caller, database: Database
) -> None:
    oldest = await failed(call)
    await seed(database, MAX_SCANNED_JOBS + 50)
    first = await call.RerunJobs(user_id="ada", all=True)
    assert (first.matched, first.done) == (0, False)
    last = await call.RerunJobs(user_id="ada", all=True, page_token=first.next_page_token)
    assert (last.matched, last.done) == (1, True)
    assert last.sample[0].origin_job_id == oldest.id


@pytest.mark.parametrize("tuning", [Tuning(bulk_part=2)])
async def test_a_step_that_fails_in_the_middle_can_be_repeated(gated: App) -> None:
    async with calling(gated.address) as call:
        for _ in range(5):
            await failed(call)
        commits = 0

        async def second_fails() -> None:
            nonlocal commits
            commits += 1
            if commits == 2:
                raise StoreUnavailable("gone", kind="connection")

        gated.store.before_commit = second_fails
        refused = await refusal(call.RerunJobs(user_id="ada", all=True))
        assert refused.code is StatusCode.UNAVAILABLE
        assert len(await listed(call, statuses=[QUEUED])) == 2
        answer = await call.RerunJobs(user_id="ada", all=True)
        assert (answer.matched, answer.changed, answer.done) == (3, 3, True)
        origins = {job.origin_job_id for job in await listed(call, statuses=[QUEUED])}
        assert len(origins) == 5


async def test_jobs_that_go_or_end_during_a_step_are_left_out(gated: App) -> None:
    async with calling(gated.address) as call:
        jobs = [await failed(call, parameters={"n": n}) for n in range(3)]

        async def deleted() -> None:
            gated.store.before_read = nothing
            await call.DeleteJob(job_id=jobs[1].id, user_id="ada")

        async def nothing() -> None: ...

        gated.store.before_read = deleted  # once the jobs are listed, before their payloads are
        answer = await call.RerunJobs(user_id="ada", all=True)
        assert (answer.matched, answer.changed) == (3, 2)
        assert {job.origin_job_id for job in answer.sample} == {jobs[0].id, jobs[2].id}


@both_databases
@in_turn("waits", [{"statuses": [QUEUED]}, {"held": False}])
async def test_a_job_that_starts_during_a_step_goes_on_if_only_those_that_wait_are_cancelled(
    app: App, call: Caller, monkeypatch: pytest.MonkeyPatch, waits: dict[str, Any]
) -> None:
    started, queued = await call.job(), await call.job()
    list_jobs = app.store.list_jobs

    async def started_since(*args: Any, **options: Any) -> Any:
        page = await list_jobs(*args, **options)
        await call.TransitionJob(job_id=started.id, target_status=PROCESSING)
        return page

    with monkeypatch.context() as patch:
        patch.setattr(app.store, "list_jobs", started_since)
        answer = await call.CancelJobs(user_id="ada", filter=waits)
    assert (answer.matched, answer.changed) == (2, 1)
    assert [job.id for job in answer.sample] == [queued.id]
    job = (await call.GetJob(job_id=started.id, user_id="ada")).job
    assert (job.held, job.HasField("cancel_request_time")) == (True, False)
    await call.MarkCompleted(job_id=job.id, attempt=1)


# --- the pace ------------------------------------------------------------------------------------


async def test_a_pace_holds_across_steps(call: Caller) -> None:
    jobs = [await failed(call) for _ in range(7)]
    dry = await call.RerunJobs(user_id="ada", all=True, jobs_per_second=10, validate_only=True)
    assert dry.matched == 7
    answers = await steps(call, "RerunJobs", user_id="ada", jobs_per_second=0.02, max_jobs=3)
    made = [job for answer in answers for job in answer.sample]
    assert [job.origin_job_id for job in made] == [job.id for job in reversed(jobs)]
    times = [job.schedule_time.ToMicroseconds() for job in made]
    assert [after - before for before, after in pairwise(times)] == [50_000_000] * 6
    assert abs(times[0] - made[0].create_time.ToMicroseconds()) < 50_000_000
    # The first may start now, and no other.
    assert len((await call.ClaimJobs(worker_id="w", job_types=["render"], max_jobs=9)).jobs) == 1
    # The next walk is a new one.
    await failed(call)
    answer = await call.RerunJobs(user_id="ada", all=True, jobs_per_second=0.02)
    assert answer.sample[0].schedule_time.ToMicroseconds() < times[-1]


@several_servers
@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_pace_begins_by_the_clock_of_the_database(
    call: Caller, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The server's own clock may be wrong."""
    for _ in range(2):
        await failed(call)
    real = time.time_ns
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: real() + hours * 3600 * 10**9)
        answer = await call.RerunJobs(user_id="ada", all=True, jobs_per_second=0.02)
    first, second = (job.schedule_time.ToMicroseconds() for job in answer.sample)
    assert abs(first - answer.sample[0].create_time.ToMicroseconds()) < 50_000_000
    assert second - first == 50_000_000


async def test_a_pace_that_leads_too_far_ahead_is_refused(call: Caller) -> None:
    for _ in range(2):
        await failed(call)
    request = pb.RerunJobsRequest(user_id="ada", all=True, jobs_per_second=0.001)
    key = bulk_requests.rerun_jobs(request).key
    newest = "ffffffff-ffff-7fff-bfff-ffffffffffff"
    for next_time in ("9" * 19, "9" * 17):
        far = token(key, f"{newest} {next_time}")
        fields = {"user_id": "ada", "all": True, "jobs_per_second": 0.001, "page_token": far}
        refused = await refusal(call.RerunJobs(**fields))
        (violation,) = refused.details["BadRequest"].field_violations
        assert (refused.reason, violation.field) == ("INVALID_FIELD", "jobs_per_second")
    assert len(await listed(call)) == 2


# --- tokens --------------------------------------------------------------------------------------


@in_turn("method", METHODS)
async def test_a_token_is_of_its_call_its_owner_its_filter_and_its_pace(
    call: Caller, method: str
) -> None:
    user_id = method
    for _ in range(2):
        await (call.job if method == "CancelJobs" else partial(failed, call))(user_id=user_id)
    fields: dict[str, Any] = {"user_id": user_id, "all": True, "max_jobs": 1}
    given = (await getattr(call, method)(validate_only=True, **fields)).next_page_token
    others: list[dict[str, Any]] = [
        {"user_id": "bob"},
        {"user_id": ""},
        {"filter": {"held": False}, "all": False},
        {"filter": {"job_types": ["render"]}, "all": False},
    ]
    if method == "RerunJobs":
        others.append({"jobs_per_second": 5})
    for other in others:
        refused = await refusal(getattr(call, method)(**{**fields, **other, "page_token": given}))
        assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN")
    for another in {*METHODS, "ListJobs"} - {method}:
        every = {} if another == "ListJobs" else {"all": True}
        refused = await refusal(getattr(call, another)(user_id=user_id, page_token=given, **every))
        assert refused.reason == "INVALID_TOKEN"
    answer = await getattr(call, method)(page_token=given, **fields)
    assert (answer.matched, answer.changed, answer.done) == (1, 1, True)


@in_turn(
    "content",
    ["", "x", "x 1", "{id}", "{id} ", "{id} x", "{id} -1", "{id} 1 2", "{id} " + "9" * 30],
)
async def test_an_invented_token_is_refused(call: Caller, content: str) -> None:
    job = await failed(call)
    key = bulk_requests.rerun_jobs(pb.RerunJobsRequest(user_id="ada", all=True)).key
    invented = token(key, content.format(id=job.id))
    refused = await refusal(call.RerunJobs(user_id="ada", all=True, page_token=invented))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN")


async def test_a_job_whose_unique_key_is_taken_is_not_repeated_until_it_is_free(
    call: Caller,
) -> None:
    ids = []
    for key in ("a", "b"):
        job = await call.running(unique_key=key)
        await call.MarkFailed(
            job_id=job.id, attempt=1, finish={"error": {"reason": "OOM", "message": "m"}}
        )
        ids.append(job.id)
    active = await call.running(unique_key="a")
    refused = await refusal(call.RerunJob(job_id=ids[0], user_id="ada"))
    assert refused.reason == "UNIQUE_KEY_TAKEN"
    answer = await call.RerunJobs(user_id="ada", all=True)
    assert answer.changed == 1
    await call.MarkCompleted(job_id=active.id, attempt=1)
    again = await call.RerunJobs(user_id="ada", all=True)
    assert again.changed == 1
    found = (await call.ListJobs(user_id="ada", filter={"statuses": ["JOB_STATUS_QUEUED"]})).jobs
    assert {job.origin_job_id for job in found} == set(ids)
