"""What becomes of a job by what its handler returns, and by why and when it was stopped."""

import asyncio
import contextlib
import contextvars
import threading

import pytest

from jobledger import Completed, Failed, Job, JobStatus, Release
from jobledger.worker.handlers.handler import make_handler
from jobledger.worker.handlers.job_run import JobRun
from jobledger.worker.job import Stop
from tests.support.recorded_updates import RecordedUpdates

JOB = Job(id="j", job_type="render", status=JobStatus.PROCESSING, attempt=1)


async def finish(job):
    pass


async def hang(job):
    await asyncio.Event().wait()


async def raises(job):
    raise ValueError("disk full")


async def swallow(job):
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return Completed({"half": True})


def stop(run, why):
    match why:
        case "CANCELLED":
            run.cancel("not needed")
        case "SHUTDOWN":
            run.shut_down()
        case "LOST" | "EXPIRED":
            run.lose(Stop[why], "scripted")


DISK_FULL = Failed("disk full", "VALUE_ERROR")
KEPT = Completed({"half": True})


async def outcome_of(function, *reasons, clean_up=10.0, **options):
    """Run a handler, and stop it for these reasons when it has begun."""

    async def stopped(job, call_next):
        for reason in reasons:
            asyncio.get_running_loop().call_soon(stop, run, reason)
        return await call_next(job)

    updates = RecordedUpdates()
    handler = make_handler(function, middleware=[stopped], **options)
    run = JobRun(JOB, handler, clean_up=clean_up)
    await run.run(updates)
    return updates.outcome


@pytest.mark.parametrize(
    ("function", "why", "outcome"),
    [
        (hang, "CANCELLED", Release()),
        (hang, "SHUTDOWN", Release()),
        (hang, "EXPIRED", Release()),
        (hang, "LOST", None),
        (swallow, "CANCELLED", KEPT),
        (swallow, "SHUTDOWN", KEPT),
        (swallow, "EXPIRED", Release()),
        (swallow, "LOST", None),
    ],
)
async def test_how_a_stopped_handler_ends(function, why, outcome):
    assert await outcome_of(function, why) == outcome


@pytest.mark.parametrize(
    ("function", "outcome"),
    [(hang, Failed("not finished within 0.01 s", "TIMED_OUT")), (swallow, KEPT)],
)
async def test_how_a_handler_ends_that_takes_too_long(function, outcome):
    assert await outcome_of(function, timeout=0.01) == outcome


@pytest.mark.parametrize(("function", "outcome"), [(finish, Completed()), (raises, DISK_FULL)])
async def test_a_cancellation_after_the_handler_has_returned_changes_nothing(function, outcome):
    assert await outcome_of(function, "CANCELLED") == outcome


@pytest.mark.parametrize("why", ["CANCELLED", "SHUTDOWN"])
async def test_what_a_stopped_handler_raises_while_it_cleans_up_is_no_failure(why):
    async def cleans_up(job):
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("nothing to clean up")

    assert await outcome_of(cleans_up, why) == Release()


@pytest.mark.parametrize("later", ["SHUTDOWN", "EXPIRED", "LOST"])
async def test_a_later_reason_does_not_interrupt_what_a_handler_does_to_clean_up(later):
    cleaned = []

    async def render(job):
        asyncio.get_running_loop().call_soon(stop, run, "CANCELLED")
        try:
            await asyncio.Event().wait()
        finally:
            stop(run, later)
            await asyncio.sleep(0)
            cleaned.append(job.id)

    run = JobRun(JOB, make_handler(render))
    await run.run(RecordedUpdates())
    assert cleaned == [JOB.id]


async def test_a_handler_that_returns_no_outcome_after_a_cancellation_has_not_completed_the_job():
    async def obeys(job):
        while not job.cancel_requested:
            await asyncio.sleep(0)

    assert await outcome_of(obeys, "CANCELLED", on_cancel="flag") == Release()


async def test_an_expired_job_that_the_service_gives_to_another_worker_is_not_released():
    assert await outcome_of(hang, "EXPIRED", "LOST") is None


async def test_a_handler_that_was_stopped_before_it_started_does_not_start():
    updates = RecordedUpdates()
    run = JobRun(JOB, make_handler(finish))
    run.shut_down()
    await run.run(updates)
    assert updates.outcome == Release()


async def test_a_run_that_is_cancelled_is_shut_down_first():
    updates = RecordedUpdates()
    running = asyncio.create_task(JobRun(JOB, make_handler(hang)).run(updates))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert updates.outcome == Release()


@pytest.mark.parametrize(("function", "outcome"), [(finish, Completed()), (raises, DISK_FULL)])
async def test_a_run_that_is_cancelled_after_its_handler_has_returned_sends_the_outcome(
    function, outcome
):
    class Renewals(RecordedUpdates):
        async def renew_lease(self):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                running.cancel()
                raise

    updates = Renewals()
    running = asyncio.create_task(JobRun(JOB, make_handler(function)).run(updates))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert updates.outcome == outcome


@pytest.mark.parametrize("function", [hang, finish])
async def test_a_worker_that_stops_gives_up_an_outcome_that_cannot_be_sent(function):
    class Outage(RecordedUpdates):
        async def send_outcome(self, outcome):
            if function is finish:
                asyncio.get_running_loop().call_soon(run.shut_down)
            await asyncio.Event().wait()

    run = JobRun(JOB, make_handler(function), clean_up=0.01)
    running = asyncio.create_task(run.run(Outage()))
    if function is hang:
        asyncio.get_running_loop().call_soon(run.shut_down)
    await running


# --- handlers that do not stop --------------------------------------------------------------------


RELEASED = (["SHUTDOWN"], {}, Release())
TIMED_OUT = ([], {"timeout": 0.01}, Failed("not finished within 0.01 s", "TIMED_OUT"))


async def test_a_handler_that_swallows_its_cancellation_is_cancelled_again():
    cancelled = []

    async def render(job):
        while len(cancelled) < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
        raise asyncio.CancelledError

    assert await outcome_of(render, "SHUTDOWN", clean_up=0.01) == Release()


@pytest.mark.parametrize(("reasons", "options", "outcome"), [RELEASED, TIMED_OUT])
async def test_a_handler_that_swallows_every_cancellation_is_closed(reasons, options, outcome):
    variable = contextvars.ContextVar[str]("variable")
    cleaned = []

    async def render(job):
        token = variable.set(job.id)
        try:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        finally:
            variable.reset(token)  # ValueError in another context
            cleaned.append(job.id)

    assert await outcome_of(render, *reasons, clean_up=0.01, **options) == outcome
    assert cleaned == [JOB.id]


@pytest.mark.parametrize("error", [OSError("disk full"), asyncio.CancelledError()])
async def test_what_a_handler_raises_when_it_is_closed_keeps_no_worker_from_exiting(error):
    async def render(job):
        try:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        finally:
            raise error

    assert await outcome_of(render, "SHUTDOWN", clean_up=0.01) == Release()


@pytest.mark.parametrize(("reasons", "options", "outcome"), [RELEASED, TIMED_OUT])
async def test_a_thread_that_does_not_stop_is_left_behind(reasons, options, outcome):
    end = threading.Event()
    try:
        result = await outcome_of(lambda job: end.wait(30), *reasons, clean_up=0.01, **options)
    finally:
        end.set()
    assert result == outcome
