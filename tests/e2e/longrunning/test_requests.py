"""Which operations a call is about, whose they are, and what is refused."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from tests.e2e.longrunning.operations import Operations, job_in, name_of
from tests.support.access_file import rule
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import Caller, refusal

EVE = (("x-jobledger-user", "eve"),)
BY_NAME = ["Get", "Cancel", "Delete", "Wait"]


def fields_of(refused: Any) -> list[str]:
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    return [v.field for v in refused.details["BadRequest"].field_violations]


@in_turn("verb", BY_NAME)
async def test_an_absent_job_and_another_owners_job_give_identical_answers(
    call: Caller, operations: Operations, verb: str
) -> None:
    job = await call.ended()

    async def raw(metadata: Any) -> tuple[Any, ...]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(operations, verb)(name=name_of(job), metadata=metadata)
        error = caught.value
        return error.code(), error.details(), tuple(error.trailing_metadata())

    foreign = await raw(EVE)
    assert (await call.GetJob(job_id=job.id, user_id="ada")).job == job
    await call.DeleteJob(job_id=job.id, user_id="ada")
    assert await raw((("x-jobledger-user", "ada"),)) == foreign == await raw(EVE)
    refused = await refusal(getattr(operations, verb)(name=name_of(job), metadata=EVE))
    assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    assert refused.details["ResourceInfo"].resource_name == job.id


@in_turn(
    "name",
    ["", "jobs", "jobs/", "job/x", "/jobs/x", "jobs/x/y", "operations/x", f"jobs/{'x' * 37}"],
)
async def test_an_invalid_operation_name_is_refused(operations: Operations, name: str) -> None:
    for verb in BY_NAME:
        assert fields_of(await refusal(getattr(operations, verb)(name=name))) == ["name"]


async def test_without_an_owner_every_call_is_refused(operations: Operations) -> None:
    for verb in (*BY_NAME, "List"):
        call = getattr(operations, verb)
        refused = await refusal(call(name="jobs" if verb == "List" else "jobs/x", metadata=()))
        assert fields_of(refused) == ["x-jobledger-user"]
        refused = await refusal(call(name="", metadata=()))
        assert sorted(fields_of(refused)) == ["name", "x-jobledger-user"]


@in_turn(
    ("metadata", "field"),
    [
        ((("x-jobledger-user", ""),), "x-jobledger-user"),
        ((("x-jobledger-user", "x" * 129),), "x-jobledger-user"),
        ((("x-jobledger-user", "ada"), ("x-jobledger-user", "ada")), "x-jobledger-user"),
        ((("x-jobledger-user", "ada"), ("x-jobledger-user-bin", b"ada")), "x-jobledger-user"),
        ((("x-jobledger-user-bin", b"\xff"),), "x-jobledger-user-bin"),
        ((("x-jobledger-user-bin", b"a\0b"),), "x-jobledger-user-bin"),
    ],
)
async def test_a_bad_owner_is_refused(operations: Operations, metadata: Any, field: str) -> None:
    assert fields_of(await refusal(operations.Get(name="jobs/x", metadata=metadata))) == [field]


async def test_an_owner_may_have_any_name(call: Caller, operations: Operations) -> None:
    job = await call.job(user_id="Грета 🦊")
    metadata = (("x-jobledger-user-bin", "Грета 🦊".encode()),)
    assert job_in((await operations.Get(name=name_of(job), metadata=metadata)).metadata) == job


async def test_a_list_has_the_owners_jobs_newest_first(
    call: Caller, operations: Operations
) -> None:
    jobs = [await call.job(), await call.running(), await call.ended()]
    await call.job(user_id="eve")
    listed = (await operations.List(name="jobs")).operations
    assert [job_in(o.metadata) for o in listed] == jobs[::-1]
    assert listed[0] == await operations.Get(name=name_of(jobs[2]))


FILTERS = [
    ("", "dcba"),
    ("  ", "dcba"),
    ("done=true", "db"),
    ("done = false", "ca"),
    ('metadata.job_type="export"', "dc"),
    ('metadata.job_type = "export" AND done=true', "d"),
    ('done=false AND metadata.job_type="render"', "a"),
    ('metadata.job_type="none"', ""),
]


async def test_a_filter_that_is_understood(
    call: Caller, operations: Operations, subtests: pytest.Subtests
) -> None:
    jobs = {
        "a": await call.running(),
        "b": await call.ended(),
        "c": await call.job(job_type="export"),
        "d": await call.ended(job_type="export"),
    }
    for text, expected in FILTERS:
        with subtests.test(text):
            listed = (await operations.List(name="jobs", filter=text)).operations
            assert [o.name for o in listed] == [name_of(jobs[key]) for key in expected]


@in_turn(
    "text",
    [
        "done",
        "done=True",
        'done="true"',
        "done=true done=true",
        "done=true AND done=true",
        "done=true OR done=false",
        "NOT done=true",
        "done=true AND ",
        "metadata.job_type=render",
        "metadata.job_type=true",
        'metadata.job_type=""',
        'metadata.job_type="no spaces"',
        'metadata.status="FAILED"',
        f"done=true{' ' * 300}AND",
    ],
)
async def test_a_filter_that_is_not_understood_is_refused(
    operations: Operations, text: str
) -> None:
    fields = fields_of(await refusal(operations.List(name="jobs", filter=text)))
    assert set(fields) == {"filter"}


async def test_a_filter_of_very_much_white_space_is_refused_at_once(
    operations: Operations,
) -> None:
    text = f"a{' ' * 60_000}b"
    assert "filter" in fields_of(await refusal(operations.List(name="jobs", filter=text)))


@in_turn("name", ["", "jobs/", "operations", "users/ada/jobs"])
async def test_a_list_of_another_collection_is_refused(operations: Operations, name: str) -> None:
    assert fields_of(await refusal(operations.List(name=name))) == ["name"]


async def test_a_page_token_is_good_for_its_own_query_only(
    call: Caller, operations: Operations
) -> None:
    for _ in range(2):
        await call.job()
    token = (await operations.List(name="jobs", page_size=1)).next_page_token
    assert token
    for fields in (
        {"filter": "done=false"},
        {"metadata": EVE},
        {"page_token": "what?"},
    ):
        refused = await refusal(operations.List(**{"name": "jobs", "page_token": token, **fields}))
        assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN")
    refused = await refusal(call.ListJobs(user_id="ada", page_token=token))
    assert refused.reason == "INVALID_TOKEN"
    assert fields_of(await refusal(operations.List(name="jobs", page_size=-1))) == ["page_size"]


CALLERS = "".join(
    rule(name, f'roles = ["{role}"]\nusers = {users}\njob_types = ["*"]')
    for name, role, users in (
        ("one", "owner", '["ada"]'),
        ("two", "owner", '["ada", "bob"]'),
        ("all", "owner", '["*"]'),
        ("worker", "worker", '["ada"]'),
    )
)

Ask = Callable[..., Any]


@pytest.fixture
async def ask(start_with: Any) -> AsyncIterator[Ask]:
    """Get an operation with a token, in a user's name; return the reason of the refusal."""
    app = await start_with(CALLERS)
    async with grpc.aio.insecure_channel(app.address) as channel:
        operations = Operations(channel)

        async def ask(verb: str, token: str | None, *owners: tuple[str, str | bytes]) -> str:
            metadata = () if token is None else (("authorization", f"Bearer {token}"),)
            name = "jobs" if verb == "List" else "jobs/nowhere"
            called = getattr(operations, verb)(name=name, metadata=(*metadata, *owners))
            if verb == "List":
                try:
                    await called
                except grpc.aio.AioRpcError:
                    pass
                else:
                    return "JOB_NOT_FOUND"  # let in, as the others are
            return (await refusal(called)).reason

        yield ask


ADA = ("x-jobledger-user", "ada")


@in_turn(
    ("token", "owner", "answer"),
    [
        (None, ADA, "UNAUTHENTICATED"),
        ("wrong", ADA, "UNAUTHENTICATED"),
        ("worker", ADA, "ACCESS_DENIED"),
        ("one", ADA, "JOB_NOT_FOUND"),
        ("one", ("x-jobledger-user", "bob"), "ACCESS_DENIED"),
        ("one", ("x-jobledger-user-bin", b"bob"), "ACCESS_DENIED"),
        ("one", ("x-jobledger-user-bin", b"\xff"), "INVALID_FIELD"),
        ("one", None, "JOB_NOT_FOUND"),  # it may act for one user only
        ("two", ("x-jobledger-user", "bob"), "JOB_NOT_FOUND"),
        ("two", None, "INVALID_FIELD"),
        ("all", ("x-jobledger-user", "eve"), "JOB_NOT_FOUND"),
        ("all", None, "INVALID_FIELD"),
    ],
)
async def test_the_access_file_applies_to_operations(
    ask: Ask, token: str | None, owner: Any, answer: str
) -> None:
    for verb in (*BY_NAME, "List"):
        assert await ask(verb, token, *([owner] if owner else [])) == answer, verb
