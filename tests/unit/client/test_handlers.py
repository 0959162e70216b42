"""What a worker does around a handler, whichever kind of function it is."""

import asyncio
import logging
from dataclasses import dataclass, field

import pytest

from jobledger import Asset, Completed, Failed, Partial, Release, RetryLater, RetryPolicy
from jobledger.testing import run_handler
from jobledger.worker import BlockingJob, ClaimedJob, InvalidParameters

# --- the outcome ----------------------------------------------------------------------------------


@dataclass
class Frame:
    number: int


@dataclass
class Rendered:
    frames: list[Frame]


def run_both(function):
    """Run a handler as a plain function and as an async one."""

    async def asynchronous(job):
        return function(job)

    return [run_handler(function), run_handler(asynchronous)]


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        (None, Completed()),
        ({"frames": [{"number": 1}]}, Completed({"frames": [{"number": 1}]})),
        (Rendered([Frame(1)]), Completed({"frames": [{"number": 1}]})),
        (Partial({"a": 1}), Partial({"a": 1})),
        (Release(), Release()),
    ],
)
def test_what_a_handler_may_return(returned, outcome):
    assert [run.outcome for run in run_both(lambda job: returned)] == [outcome] * 2


def test_a_handler_may_take_any_arguments():
    for run in run_both(lambda *arguments: {"count": len(arguments)}):
        assert run.outcome == Completed({"count": 1})


def test_a_plain_function_that_returns_a_coroutine_makes_the_job_failed():
    async def finish(job):
        pass

    def call(job):
        return finish(job)

    assert run_handler(call).outcome.reason == "TYPE_ERROR"


def nested(levels):
    value = {"bottom": True}
    for _ in range(levels - 1):
        value = {"a": value}  # type: ignore[dict-item]
    return value


def broken_assets():
    yield Asset("image/png", url="https://example.com/a.png")
    raise OSError("disk full")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Completed(nested(40)), "result.a.a"),
        (lambda: nested(40), "result.a.a"),
        (lambda: Completed(assets=broken_assets()), "disk full"),
        (lambda: Failed(ValueError("disk full")), "message: ValueError('disk full')"),
    ],
)
def test_an_outcome_that_cannot_be_sent_makes_the_job_failed(make, words):
    for run in run_both(lambda job: make()):
        assert isinstance(run.outcome, Failed)
        assert words in run.outcome.message


@pytest.mark.parametrize(
    ("error", "reasons"),
    [
        (OSError("disk full"), ["OS_ERROR"] * 2),
        (SystemExit(3), ["SYSTEM_EXIT"] * 2),
        (StopIteration("x"), ["RUNTIME_ERROR"] * 2),
        (asyncio.CancelledError(), ["CANCELLED_ERROR"] * 2),
    ],
)
def test_what_a_handler_raises_makes_the_job_failed_and_is_kept(error, reasons):
    def broken(job):
        raise error

    runs = run_both(broken)
    assert [run.outcome.reason for run in runs] == reasons
    assert all(run.raised is not None for run in runs)


def test_a_keyboard_interrupt_in_a_thread_ends_no_event_loop():
    def interrupted(job):
        raise KeyboardInterrupt

    assert run_handler(interrupted).outcome.reason == "RUNTIME_ERROR"


def test_an_error_while_cleaning_up_does_not_hide_the_cancellation():
    async def clean_up(job):
        try:
            while True:
                await job.progress(1)
        finally:
            raise OSError("nothing to clean up")

    assert run_handler(clean_up, cancel_after=1).cancelled


# --- retries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("retry_on", [OSError, (KeyError, OSError), [OSError]])
def test_what_retry_on_names_is_a_retryable_failure_with_that_error(retry_on, caplog):
    def render(job):
        raise FileNotFoundError("no scene")

    async def render_async(job):
        render(job)

    for function in (render, render_async):
        run = run_handler(function, retry_on=retry_on)
        assert run.outcome == Failed("no scene", "FILE_NOT_FOUND_ERROR", retryable=True)
        assert not run_handler(function, retry_on=KeyError).outcome.retryable
    assert {record.levelname for record in caplog.records} == {"WARNING", "ERROR"}


def test_a_handler_that_asks_for_a_retry_is_logged_without_a_traceback_of_that(caplog):
    def render(job):
        if job.parameters:
            try:
                int("no number")
            except ValueError as error:
                raise RetryLater("no database") from error
        raise RetryLater("busy")

    run_handler(render)
    # Its last attempt, which is logged with the traceback.
    run_handler(render, {"fails": True}, retry_policy=RetryPolicy(max_attempts=1))
    busy, failed = caplog.records
    assert (busy.levelname, busy.exc_info) == ("WARNING", None)
    assert busy.message.endswith("asks for a retry: busy")
    assert failed.exc_info[0] is ValueError


@pytest.mark.parametrize("error", [OSError("no\nscene"), RetryLater("busy")])
def test_a_retry_is_one_line_with_its_traceback_at_debug(caplog, error):
    def render(job):
        raise error from KeyError("a cause")

    caplog.set_level(logging.DEBUG, "jobledger.worker")
    run_handler(render, retry_on=OSError, retry_policy=RetryPolicy(max_attempts=2))
    line, traceback = caplog.records
    assert (line.levelname, line.exc_info) == ("WARNING", None)
    assert "\n" not in line.message
    assert line.message.endswith(" ".join(str(error).split()))
    assert (traceback.levelname, traceback.exc_info is None) == ("DEBUG", False)


def test_retry_on_goes_by_what_leaves_the_middleware():
    async def translate(job, call_next):
        try:
            return await call_next(job)
        except LookupError as error:
            raise ConnectionError("the service is away") from error

    def render(job):
        return {}["scene"]

    run = run_handler(render, middleware=[translate], retry_on=ConnectionError)
    assert (run.outcome.reason, run.outcome.retryable) == ("CONNECTION_ERROR", True)


@pytest.mark.parametrize(("retry_on", "retryable"), [((), False), (TimeoutError, True)])
def test_a_timeout_of_the_handler_is_retryable_as_a_timeout_error(retry_on, retryable):
    async def hang(job):
        await asyncio.Event().wait()

    outcome = run_handler(hang, timeout=0.01, retry_on=retry_on).outcome
    assert (outcome.reason, outcome.retryable) == ("TIMED_OUT", retryable)


@pytest.mark.parametrize(
    "retry_on", [BaseException, asyncio.CancelledError, "OSError", [OSError()]]
)
def test_what_is_no_class_of_exceptions_cannot_be_retried_on(retry_on):
    with pytest.raises(TypeError, match=r"^retry_on: "):
        run_handler(lambda job: None, retry_on=retry_on)


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        ([1], "checkpoint: list is not a mapping"),
        ({"frame": object()}, "checkpoint.frame: object"),
        ({"frame": 2**53 + 1}, "checkpoint.frame: "),
        ({"frames": "x" * 2**16}, "checkpoint: has 65556 bytes, at most 65536 are allowed"),
    ],
)
def test_an_invalid_checkpoint_is_an_error_of_the_handler(checkpoint, words):
    async def render(job):
        await job.progress(1, checkpoint=checkpoint)

    for function in (render, lambda job: job.progress(1, checkpoint=checkpoint)):
        run = run_handler(function)
        assert words in run.outcome.message
        assert run.reports == []


# --- reports and cancellation ---------------------------------------------------------------------


@pytest.mark.parametrize("percent", [-1, 101, float("nan"), float("inf")])
def test_an_invalid_percentage_is_an_error_of_the_handler(percent):
    run = run_handler(lambda job: job.progress(percent))
    assert run.outcome.reason in {"VALUE_ERROR", "OVERFLOW_ERROR"}
    assert run.reports == []


def test_a_cancellation_is_raised_once_so_that_cleaning_up_can_be_reported():
    def render(job):
        try:
            while True:
                job.progress()
        finally:
            job.add_asset("image/png", url="https://example.com/half.png")

    run = run_handler(render, cancel_after=2)
    assert (run.outcome, run.cancelled) == (Release(), True)
    assert len(run.assets) == 1


# --- middleware -----------------------------------------------------------------------------------


def test_middleware_is_around_each_handler_the_first_outermost():
    steps = []

    async def outer(job, call_next):
        steps.append(f"outer {job.job_type}")
        outcome = await call_next(job)
        steps.append(outcome)
        return outcome

    async def inner(job, call_next):
        steps.append("inner")
        return await call_next(job)

    def render(job):
        steps.append("handler")
        return {"count": 1}

    run_handler(render, middleware=[outer, inner])
    assert steps == ["outer render", "inner", "handler", Completed({"count": 1})]


def test_middleware_can_replace_an_outcome_and_need_not_call_the_handler():
    async def refuse(job, call_next):
        if job.labels:
            return Failed("not on this machine", "REFUSED")
        try:
            return await call_next(job)
        except ZeroDivisionError:
            return {"infinite": True}

    def divide(job):
        return {"quotient": 1 / 0}

    assert run_handler(divide, middleware=[refuse], labels={"a": "b"}).outcome.reason == "REFUSED"
    assert run_handler(divide, middleware=[refuse]).outcome == Completed({"infinite": True})


def test_what_middleware_raises_makes_the_job_failed():
    async def broken(job, call_next):
        await call_next(job)
        raise OSError("no disk")

    assert run_handler(lambda job: None, middleware=[broken]).outcome.reason == "OS_ERROR"


# --- the log --------------------------------------------------------------------------------------


def test_each_record_of_a_jobs_log_names_the_job(caplog):
    caplog.set_level(logging.INFO, "jobledger.job")

    def render(job):
        job.log.info("decoded %d %%", 25, extra={"scene": "castle"})
        return {"id": job.id}

    run = run_handler(render, attempt=3)
    (record,) = [each for each in caplog.records if each.name == "jobledger.job"]
    job_id = run.outcome.result["id"]
    assert record.getMessage() == f"job {job_id}: decoded 25 %"
    facts = (record.job_id, record.job_type, record.attempt, record.scene)
    assert facts == (job_id, "render", 3, "castle")


# --- typed parameters -----------------------------------------------------------------------------


@dataclass
class RenderParams:
    scene: str
    frames: int = 1
    sizes: list[int] = field(default_factory=list)


def render_in_thread(job: BlockingJob, params: RenderParams):
    return params


async def render(job: ClaimedJob, params: RenderParams):
    return params


@pytest.mark.parametrize("function", [render, render_in_thread])
def test_parameters_can_be_a_dataclass(function):
    run = run_handler(function, {"scene": "castle", "sizes": [1, 2], "unknown": True})
    assert run.outcome.result == {"scene": "castle", "frames": 1, "sizes": [1, 2]}


def test_parameters_that_do_not_fit_make_the_job_failed_and_middleware_sees_it(caplog):
    """The log says what does not fit, in one line: no code of the handler ran."""
    seen = []

    async def watch(job, call_next):
        try:
            return await call_next(job)
        except InvalidParameters as error:
            seen.append(str(error))
            raise

    run = run_handler(render, {"scene": 7}, middleware=[watch])
    assert run.outcome.reason == "INVALID_PARAMETERS"
    assert seen == [run.outcome.message]
    assert "scene" in run.outcome.message
    (record,) = caplog.records
    assert run.outcome.message in record.message
    assert record.exc_info is None
