"""`run_handler`: a handler runs as in a worker, and without a server."""

import asyncio
from dataclasses import dataclass

import pytest

from jobledger import (
    Asset,
    BlockingJob,
    ClaimedJob,
    Completed,
    Failed,
    JobError,
    Partial,
    Release,
    RetryLater,
    RetryPolicy,
)
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


async def test_in_an_event_loop_a_run_is_awaited():
    run = await run_handler_async(render, {"scene": "castle"})
    assert run.outcome.result == {"frames": 1}
    with pytest.raises(RuntimeError, match="run_handler_async"):
        run_handler(render, {"scene": "castle"})


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


@pytest.mark.parametrize(
    ("on_cancel", "outcome", "cancelled"),
    [("raise", Release(), True), ("flag", Partial({"steps": 3}), False)],
)
def test_cancel_after_cancels_with_that_report(on_cancel, outcome, cancelled):
    async def steps(job):
        for step in range(10):
            await job.progress(step)
            if job.cancel_requested:
                return Partial({"steps": step + 1})
        return Completed()

    def steps_in_thread(job):
        for step in range(10):
            job.progress(step)
            if job.cancel_requested:
                return Partial({"steps": step + 1})
        return Completed()

    for function in (steps, steps_in_thread):
        run = run_handler(function, on_cancel=on_cancel, cancel_after=3, cancel_reason="late")
        assert (run.outcome, run.cancelled) == (outcome, cancelled)
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


def test_a_handler_can_be_run_as_a_later_attempt():
    def resume(job):
        return {"from": job.checkpoint, "why": job.last_error.reason, "of": job.max_attempts}

    run = run_handler(
        resume,
        attempt=2,
        retry_policy=RetryPolicy(max_attempts=5),
        last_error=JobError("no", reason="DISK_FULL"),
        checkpoint={"frames": (1, 2.0)},
    )
    assert run.outcome.result == {"from": {"frames": [1, 2]}, "why": "DISK_FULL", "of": 5}


def test_a_run_shows_its_checkpoints_and_whether_the_job_goes_on():
    def render(job):
        kept = {"frames": []}
        for frame in range(2):
            kept["frames"].append(frame)
            job.progress(checkpoint=kept)
        job.progress(50)
        raise RetryLater("busy", after=60)

    run = run_handler(render)
    assert run.outcome == Failed("busy", "RETRY_LATER", retryable=True, retry_after=60)
    assert isinstance(run.raised, RetryLater)
    assert [report.checkpoint for report in run.reports] == [
        {"frames": [0]},
        {"frames": [0, 1]},
        None,
    ]
    assert run.checkpoint == {"frames": [0, 1]}
    assert run_handler(lambda job: None).checkpoint is None


def test_an_unknown_argument_is_refused_by_its_name_without_another_error_before_it():
    with pytest.raises(TypeError, match="atempt: there is no such argument") as raised:
        run_handler(lambda job: None, atempt=2)  # type: ignore[call-arg]
    assert raised.value.__context__ is None
