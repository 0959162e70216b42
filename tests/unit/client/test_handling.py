"""What becomes of a job by what its handler returned and why it was stopped, and when."""

import asyncio

import pytest

from jobledger import Completed, Failed, Job, JobStatus, Release
from jobledger.worker.context import Stop
from jobledger.worker.handlers import make_handler
from jobledger.worker.handling import Handling

JOB = Job(id="j", job_type="render", status=JobStatus.PROCESSING, attempt=1)


class Outlet:
    """Takes no report: these handlers make none."""

    def report(self, progress, message):
        raise AssertionError

    async def ask(self):
        raise AssertionError

    async def link_asset(self, asset):
        raise AssertionError


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


def stop(why):
    def apply(handling):
        if why is Stop.CANCELLED:
            handling.cancel("not needed")
        else:
            handling.stop(why)

    return apply


CANCELLED = Failed("not needed", "CANCELLED")
TIMED_OUT = Failed("not finished within 60 s", "TIMED_OUT")
DISK_FULL = Failed("disk full", "VALUE_ERROR")
KEPT = Completed({"half": True})

# By the handler: its outcome where it is stopped for each reason while it runs.
WHILE_IT_RUNS = [
    (hang, {"CANCELLED": CANCELLED, "TIMED_OUT": TIMED_OUT, "SHUTDOWN": Release()}),
    (swallow, {"CANCELLED": KEPT, "TIMED_OUT": KEPT, "SHUTDOWN": KEPT}),
]
AFTER_IT_HAS_RETURNED = [(finish, Completed()), (raises, DISK_FULL)]


async def outcome_of(function, *reasons, returned):
    handling = Handling(JOB, make_handler(function, timeout=60), Outlet())
    task = handling.start()
    if returned:
        await asyncio.wait({task})
    else:
        await asyncio.sleep(0)
    for reason in reasons:
        stop(reason)(handling)
    await asyncio.wait({task})
    handling.close()
    return handling.conclude()


@pytest.mark.parametrize(("function", "outcomes"), WHILE_IT_RUNS)
@pytest.mark.parametrize("why", ["CANCELLED", "TIMED_OUT", "SHUTDOWN"])
async def test_how_a_stopped_handler_ends(function, outcomes, why):
    assert await outcome_of(function, Stop[why], returned=False) == outcomes[why]


@pytest.mark.parametrize(("function", "outcome"), AFTER_IT_HAS_RETURNED)
@pytest.mark.parametrize("why", [Stop.CANCELLED, Stop.TIMED_OUT])
async def test_a_reason_that_comes_after_the_handler_has_returned_changes_nothing(
    function, outcome, why
):
    assert await outcome_of(function, why, returned=True) == outcome


async def test_a_cancellation_takes_precedence_over_a_timeout_and_a_shutdown():
    every = [Stop.SHUTDOWN, Stop.TIMED_OUT, Stop.CANCELLED]
    assert await outcome_of(hang, *every, returned=False) == CANCELLED
    assert await outcome_of(hang, *every[:2], returned=False) == TIMED_OUT


async def test_a_handler_that_was_stopped_before_it_started_does_not_start():
    handling = Handling(JOB, make_handler(raises), Outlet())
    handling.stop(Stop.SHUTDOWN)
    await asyncio.wait({handling.start()})
    handling.close()
    assert handling.conclude() == Release()
