"""Tasks: one object with the types of a job's parameters and its result, for both sides."""

import enum
import pickle
import types
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from jobledger import (
    BlockingJob,
    ClaimedJob,
    Client,
    Completed,
    Failed,
    Job,
    JobError,
    JobFailed,
    JobledgerError,
    JobStatus,
    NewJob,
    Outcome,
    Partial,
    RetryPolicy,
    Task,
    TaskOptions,
    Worker,
    days,
    handler,
    hours,
    minutes,
)
from jobledger.core.conversion import from_struct
from jobledger.core.new_job import JobOptions
from jobledger.testing import run_handler
from jobledger.worker.handlers.handler import make_handler
from tests.unit.client import late_annotations, task_handlers
from tests.unit.client.task_handlers import Picture, Render, clean, render


class Kind(enum.Enum):
    DRAFT = "draft"
    FINAL = "final"


@dataclass
class Inner:
    n: int
    scale: float = 1.0


class InnerModel(pydantic.BaseModel):
    id: uuid.UUID
    when: datetime


class InnerStruct(msgspec.Struct):
    day: date


@dataclass
class AsDataclass:
    when: datetime
    id: uuid.UUID
    kind: Kind
    inner: Inner
    model: InnerModel
    struct: InnerStruct
    span: timedelta = timedelta(0)
    price: Decimal = Decimal("1.20")
    data: bytes = b"\xff"
    numbers: dict[int, str] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    many: tuple[Inner, ...] = ()
    maybe: Inner | None = None


class AsStruct(msgspec.Struct, rename="camel"):
    when: datetime
    id: uuid.UUID
    kind: Kind
    inner: Inner
    model: InnerModel
    long_name: list[InnerStruct] = []


class AsModel(pydantic.BaseModel):
    when: datetime
    id: uuid.UUID
    kind: Kind
    inner: Inner
    model: InnerModel
    long_name: list[int] = pydantic.Field(default=[], alias="longName")


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, frozen=True)
    when: datetime
    id: uuid.UUID
    kind: Kind
    several: tuple[int, ...] = ()


WHEN = datetime(2026, 12, 1, 12, 30, 15, 123456, tzinfo=UTC)
ID = uuid.UUID(int=7)
COMMON: dict[str, Any] = {
    "when": WHEN,
    "id": ID,
    "kind": Kind.FINAL,
    "inner": Inner(2, scale=3.0),
    "model": InnerModel(id=ID, when=WHEN),
}
VALUES = [
    AsDataclass(
        **COMMON,
        struct=InnerStruct(date(2026, 12, 1)),
        span=timedelta(hours=1, microseconds=5),
        numbers={7: "seven"},
        tags=frozenset({"a"}),
        many=(Inner(1), Inner(2)),
        maybe=Inner(3),
    ),
    AsStruct(**COMMON, long_name=[InnerStruct(date(2026, 12, 1))]),
    AsModel(**COMMON, longName=[1, 2]),
    Strict(when=WHEN, id=ID, kind=Kind.DRAFT, several=(1, 2)),
]


def parameters_of(job: NewJob) -> dict[str, Any]:
    return from_struct(job.to_proto().parameters)


def ended(status: JobStatus = JobStatus.COMPLETED, **fields: Any) -> Job:
    return Job(**{"id": "j", "job_type": "t", "status": status, **fields})


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
async def test_parameters_arrive_as_they_were_sent(value: Any) -> None:
    task: Task[Any, Any] = Task("t", type(value), result=type(value))
    sent = parameters_of(task.new(value))
    seen = []

    async def run(job, params: type(value)):  # type: ignore[valid-type]
        seen.append(params)
        return params

    outcome = await make_handler(run, task=task).run(_claimed(sent))
    assert seen == [value]
    # And the result comes back as it was returned.
    assert isinstance(outcome, Completed)
    result = from_struct_of(outcome)
    assert task.result_of(ended(result=result)) == value


def from_struct_of(outcome: Completed) -> dict[str, Any]:
    return parameters_of(NewJob("t", outcome.result))  # as the wire has it


def _claimed(parameters: dict[str, Any]) -> Any:
    return types.SimpleNamespace(parameters=parameters, id="j")


# --- submission -----------------------------------------------------------------------------------


@pytest.fixture
def client():
    with Client("127.0.0.1:1", user_id="ada", timeout=0.1) as client:
        yield client


@dataclass
class Anything:
    value: Any


anything = Task("t", Anything)
strict = Task("t", Strict)


@pytest.mark.parametrize(
    ("task", "value", "error"),
    [
        (render, Picture("u"), TypeError),
        (render, {"width": 1}, TypeError),
        (render, Render, TypeError),
        (anything, Anything(object()), TypeError),
        (anything, Anything(1j), TypeError),
        (anything, Anything({object(): 1}), TypeError),
        (anything, Anything(2**60 + 1), ValueError),
        (anything, Anything("\udcff"), ValueError),
        (render, Render("wide"), ValueError),
        (strict, Strict.model_construct(when="soon", id=ID, kind=Kind.DRAFT), ValueError),
    ],
)
def test_what_cannot_be_sent_is_refused_when_it_is_submitted(client, task, value, error):
    for submit in (client.submit, lambda task, value: task.new(value)):
        with pytest.raises(error, match=r"^parameters\b") as caught:
            submit(task, value)
        assert not isinstance(caught.value, JobledgerError)


def test_a_job_has_the_options_of_its_task_unless_it_says_otherwise():
    retry = RetryPolicy(max_attempts=5)
    task = Task("t", Render, retry=retry, priority=3, run_timeout=minutes(30))
    silent = task.new(Render(1)).to_proto()
    assert silent.retry_policy == retry.to_proto()
    assert (silent.priority, silent.run_timeout.seconds) == (3, 1800)
    later = task.new(Render(1), delay=60, priority=8).to_proto()
    assert (later.delay.seconds, later.priority) == (60, 8)
    said = task.new(Render(1), priority=8, retry_policy=None, labels={"a": "b"}).to_proto()
    assert (said.priority, said.HasField("retry_policy"), dict(said.labels)) == (
        8,
        False,
        {"a": "b"},
    )
    assert task.new(Render(1)).request_id != task.new(Render(1)).request_id


def test_each_option_of_a_task_is_one_of_a_creation():
    named = {"retry": "retry_policy"}
    assert {named.get(each, each) for each in TaskOptions.__annotations__} <= set(
        JobOptions.__annotations__
    )


def test_time_spans_have_units():
    assert (minutes(30), hours(1.5), days(2)) == (
        timedelta(minutes=30),
        timedelta(minutes=90),
        timedelta(hours=48),
    )


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("job_type", lambda: Task(5, Render)),
        ("parameters", lambda: Task("t", dict)),
        ("parameters", lambda: Task("t", Render(1))),
        ("result", lambda: Task("t", Render, result=list)),
        ("retry", lambda: Task("t", Render, retry=3)),
        ("run_timeout", lambda: Task("t", Render, run_timeout="1h")),
        ("retries: ", lambda: Task("t", Render, retries=3)),
        ("request_id: ", lambda: Task("t", Render, request_id="r")),
    ],
)
def test_a_task_of_wrong_types_is_refused_by_the_name_of_the_argument(name, make):
    with pytest.raises(TypeError, match=f"^{name}"):
        make()


def test_a_task_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r"^job_type: is empty"):
        Task("", Render)


# --- results --------------------------------------------------------------------------------------


def test_a_failed_job_raises_an_error_that_has_the_job():
    job = ended(JobStatus.FAILED, job_type="render", error=JobError("full", reason="NO_DISK"))
    with pytest.raises(JobFailed, match=r"^job j \(render\) is FAILED: NO_DISK: full$") as caught:
        render.result_of(job)
    assert (caught.value.job, caught.value.reason) == (job, "NO_DISK")
    assert isinstance(caught.value, JobledgerError)
    assert pickle.loads(pickle.dumps(caught.value)).job == job


def test_a_partial_job_gives_the_result_that_it_has():
    job = ended(JobStatus.PARTIAL, job_type="render", result={"url": "u"})
    assert render.result_of(job) == Picture("u")
    with pytest.raises(JobFailed, match="is PARTIAL"):
        render.result_of(ended(JobStatus.PARTIAL, job_type="render"))


def test_a_task_without_a_result_gives_none():
    assert clean.result_of(ended(job_type="clean")) is None


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (ended(job_type="bake", result={"url": "u"}), "is of the type 'bake', not 'render'"),
        (ended(JobStatus.PROCESSING, job_type="render"), "is PROCESSING and has no result yet"),
        (ended(job_type="render", parameters=None), "view BASIC"),
        (ended(job_type="render"), "has none"),
        (ended(job_type="render", result={"url": 5}), r"^result: Expected `str`, got `int`"),
    ],
)
def test_what_is_no_result_of_the_task_is_refused(job, said):
    with pytest.raises(ValueError, match=said) as caught:
        render.result_of(job)
    assert not isinstance(caught.value, JobFailed)


# --- handlers -------------------------------------------------------------------------------------


class Small(Picture):
    pass


async def returns_it(job: ClaimedJob, params: Render) -> Picture: ...  # type: ignore[empty-body]
async def returns_a_subclass(job: ClaimedJob, params: Render) -> Small: ...  # type: ignore[empty-body]
async def returns_outcomes(job: ClaimedJob, params: Render) -> Picture | Outcome: ...  # type: ignore[empty-body]
async def says_nothing(job, params: Render): ...
async def says_any(job: ClaimedJob, params: Render) -> Any: ...
async def by_name(job: "ClaimedJob", params: "Render") -> "Picture | Partial": ...  # type: ignore[empty-body]
def plain(job: BlockingJob, params: Render) -> Completed | Failed: ...  # type: ignore[empty-body]
def job_alone(job: BlockingJob) -> Picture: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    "function",
    [
        returns_it,
        returns_a_subclass,
        returns_outcomes,
        says_nothing,
        says_any,
        by_name,
        plain,
        job_alone,
    ],
)
def test_a_function_that_fits_its_task_is_its_handler(function):
    assert Worker().handler(render)(function) is function


async def returns_a_mapping(job: ClaimedJob, params: Render) -> dict[str, object]: ...  # type: ignore[empty-body]
async def returns_another(job: ClaimedJob, params: Render) -> Render: ...  # type: ignore[empty-body]
async def may_return_none(job: ClaimedJob, params: Render) -> Picture | None: ...
async def returns_none(job: ClaimedJob, params: Render) -> None: ...
def plain_number(job: BlockingJob, params: Render) -> int: ...  # type: ignore[empty-body]
def another_by_name(job: BlockingJob, params: Render) -> "Render": ...  # type: ignore[empty-body]
def takes_another(job: BlockingJob, params: Picture) -> Picture: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (returns_a_mapping, "returns dict.*, and the result of 'render' is Picture"),
        (returns_another, "returns Render, and the result of 'render' is Picture"),
        (may_return_none, "returns None, and"),
        (returns_none, "returns None, and"),
        (plain_number, "returns int, and"),
        (another_by_name, "returns Render, and"),
        (takes_another, "takes Picture, and the parameters of 'render' are Render"),
    ],
)
def test_a_function_that_does_not_fit_its_task_is_refused_when_it_is_registered(function, said):
    worker = Worker()
    with pytest.raises(TypeError, match=said):
        worker.handler(render)(function)
    worker.handler(render)(returns_it)  # nothing was registered


def test_a_task_without_a_result_refuses_a_handler_that_returns_one():
    with pytest.raises(TypeError, match="returns Picture, and the result of 'clean' is None"):
        Worker().handler(clean)(returns_it)


def test_a_result_that_only_a_type_checker_knows_is_checked_when_it_is_returned():
    task = Task("t", late_annotations.Params, result=Picture)
    Worker().handler(task)(late_annotations.returns_what_is_not_imported)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "result: Expected `object`, got `null`"),
        (Completed({"uri": "u"}), "result: Object missing required field `url`"),
        (Partial({"url": 5}), "result: Expected `str`, got `int` - at `$.url`"),
        (Render(5), "result: Object missing required field `url`"),
    ],
)
def test_another_result_than_the_task_has_makes_the_job_failed(returned, said, caplog):
    async def run(job, params: Render):
        return returned

    result = run_handler(run, {"width": 1}, task=render)
    assert isinstance(result.outcome, Failed)
    assert result.outcome.reason == "INVALID_RESULT"
    assert said in result.outcome.message
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        ({"url": "u"}, Completed({"url": "u"})),
        (Completed(Picture("u")), Completed({"url": "u"})),
        (Partial(Picture("u"), "half"), Partial({"url": "u"}, "half")),
        (Partial(message="half"), Partial(message="half")),
        (Failed("no"), Failed("no")),
    ],
)
def test_a_handler_of_a_task_may_return_its_result_or_an_outcome(returned, outcome):
    async def run(job, params: Render):
        return returned

    assert run_handler(run, Render(1), task=render).outcome == outcome


def test_a_handler_that_has_to_stop_needs_no_result():
    async def run(job, params: Render):
        await job.progress()

    done = run_handler(run, Render(1), task=render, cancel_after=1, on_cancel="flag")
    assert done.cancelled


# --- a module of handlers -------------------------------------------------------------------------


def test_a_worker_includes_the_handlers_of_a_module():
    worker = Worker()
    worker.include(task_handlers)
    for name in ("render", "clean", "untyped"):
        with pytest.raises(ValueError, match=f"'{name}' has a handler"):
            worker.handler(name)(says_nothing)
    for name in ("not_a_handler", "method"):
        worker.handler(name)(says_nothing)


def test_a_module_is_included_with_the_handlers_that_it_declares_alone():
    other = types.ModuleType("other")
    other.run = task_handlers.run  # imported there
    with pytest.raises(ValueError, match="other has no function with @handler"):
        Worker().include(other)


def test_what_is_no_module_cannot_be_included():
    with pytest.raises(TypeError, match=r"^module: "):
        Worker().include("task_handlers")


def test_wrong_options_of_a_declared_handler_are_refused_when_it_is_included():
    @handler(render, timeout="1h")  # type: ignore[untyped-decorator]
    async def run(job: ClaimedJob, params: Render) -> Picture: ...  # type: ignore[empty-body]

    module = types.ModuleType(__name__)
    module.run = run
    with pytest.raises(TypeError, match=r"^timeout: "):
        Worker().include(module)
