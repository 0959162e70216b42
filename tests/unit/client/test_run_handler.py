"""`run_handler`: a handler runs as in a worker, and without a server."""

import asyncio
from dataclasses import dataclass

import pytest

from jobledger import Asset, BlockingJob, ClaimedJob, Completed, Failed, Partial, Release
from jobledger.testing import run_handler, run_handler_async
from jobledger.worker.session.reports import Report


@dataclass
class Scene:
    scene: str
    frames: int = 1


async def render(job: ClaimedJob, params: Scene) -> Completed:
    await job.progress(25.9, "decoded")
    asset = await job.add_asset("image/png", url="https://example.com/a.png")
    assert (asset.job_id, bool(asset.id)) == (job.id, True)
    await job.progress(75)
    return Completed({"frames": params.frames}, [Asset("text/plain", storage_path="log")])


def render_in_thread(job: BlockingJob, params: Scene) -> Completed:
    job.progress(25.9, "decoded")
    job.add_asset("image/png", url="https://example.com/a.png")
    job.progress(75)
    return Completed({"frames": params.frames}, [Asset("text/plain", storage_path="log")])


@pytest.mark.parametrize("function", [render, render_in_thread])
def test_run_handler_returns_the_outcome_the_reports_and_the_assets(function):
    run = run_handler(function, {"scene": "castle", "frames": 3})
    log = Asset("text/plain", storage_path="log")
    assert run.outcome == Completed({"frames": 3}, (log,))
    assert run.reports == [Report(25, "decoded"), Report(75)]
    assert [asset.asset_type for asset in run.assets] == ["image/png", "text/plain"]
    assert run.raised is None


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="atempt: "):
        run_handler(render, {"scene": "castle"}, atempt=2)  # type: ignore[call-arg]


async def test_in_an_event_loop_a_run_is_awaited():
    run = await run_handler_async(render, {"scene": "castle"})
    assert run.outcome.result == {"frames": 1}
    with pytest.raises(RuntimeError, match="run_handler_async"):
        run_handler(render, {"scene": "castle"})


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


@pytest.mark.parametrize("returned", [7, "done", [1, 2], Completed, Rendered])
def test_a_return_value_that_is_no_outcome_makes_the_job_failed(returned):
    for run in run_both(lambda job: returned):
        assert run.outcome.reason == "TYPE_ERROR"
        assert f"the handler returned {type(returned).__name__}" in run.outcome.message


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

    assert run_handler(clean_up, cancel_after=1).outcome.reason == "CANCELLED"


def test_parameters_that_do_not_fit_are_refused_as_in_a_worker():
    outcome = run_handler(render, {"scene": 7}).outcome
    assert outcome == Failed(
        "parameters: Expected `str`, got `int` - at `$.scene`", "INVALID_PARAMETERS"
    )
    with pytest.raises(ValueError, match=r"parameters\.scene: object"):
        run_handler(render, {"scene": object()})


def test_run_handler_converts_parameters_as_a_worker_does():
    outcome = run_handler(lambda job: job.parameters, {"whole": 3.0, "pair": (1, 2)}).outcome
    assert outcome.result == {"whole": 3, "pair": [1, 2]}


@pytest.mark.parametrize("on_cancel", ["raise", "flag"])
def test_cancel_after_cancels_with_that_report(on_cancel):
    async def steps(job):
        for step in range(10):
            await job.progress(step)
            if job.cancel_requested:
                return None
        return Completed()

    def steps_in_thread(job):
        for step in range(10):
            job.progress(step)
            if job.cancel_requested:
                return None
        return Completed()

    for function in (steps, steps_in_thread):
        run = run_handler(function, on_cancel=on_cancel, cancel_after=3, cancel_reason="late")
        assert run.outcome == Failed("late", "CANCELLED")
        assert run.reports == [Report(0), Report(1), Report(2)]


def test_a_progress_call_without_values_counts_for_cancel_after():
    async def steps(job):
        try:
            while True:
                await job.progress()
        except asyncio.CancelledError:
            return Partial({"cleaned": True})

    run = run_handler(steps, cancel_after=2)
    assert (run.outcome, run.reports) == (Partial({"cleaned": True}), [])
    with pytest.raises(ValueError, match="cancel_after"):
        run_handler(steps, cancel_after=0)


def test_the_job_and_the_worker_can_be_given():
    async def middleware(job, call_next):
        await job.progress(1, job.state)
        return await call_next(job)

    def look(job):
        return {"type": job.job_type, "labels": dict(job.labels), "attempt": job.attempt}

    run = run_handler(
        look,
        job_type="render",
        labels={"gpu": "yes"},
        attempt=2,
        state="connection",
        middleware=[middleware],
    )
    assert run.outcome.result == {"type": "render", "labels": {"gpu": "yes"}, "attempt": 2}
    assert run.reports == [Report(1, "connection")]


def test_a_timeout_and_a_release_are_outcomes_too():
    async def hang(job):
        await asyncio.Event().wait()

    assert run_handler(hang, timeout=0.01).outcome.reason == "TIMED_OUT"
    assert run_handler(lambda job: Release()).outcome == Release()


def test_an_error_of_run_handler_has_no_other_error_before_it():
    with pytest.raises(TypeError, match="there is no such argument") as raised:
        run_handler(lambda job: None, no_such=1)  # type: ignore[call-arg]
    assert raised.value.__context__ is None
