"""`job.track(items)`: progress as items pass, in async, plain and process handlers."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from jobledger import BlockingJob, ClaimedJob, Completed
from jobledger.testing import run_handler
from jobledger.worker.handlers.threads import tracked
from jobledger.worker.job import Counted


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def async_handler(job: ClaimedJob) -> dict[str, object]:
    return {"seen": [item async for item in job.track(["a", "b", "c"])]}


async def async_items(job: ClaimedJob) -> dict[str, object]:
    return {"seen": ["abc"[item] async for item in job.track(numbers(3), total=3)]}


def plain_handler(job: BlockingJob) -> dict[str, object]:
    return {"seen": list(job.track("abc"))}


def plain_generator(job: BlockingJob) -> dict[str, object]:
    return {"seen": list(job.track(iter("abc"), total=3))}


HANDLERS = [async_handler, async_items, plain_handler, plain_generator]


@pytest.mark.parametrize("function", HANDLERS)
def test_each_item_is_yielded_and_the_progress_ends_at_all_of_them(
    function: Callable[..., Any],
) -> None:
    run = run_handler(function)
    assert run.outcome == Completed({"seen": ["a", "b", "c"]})
    assert [run.reports[0].progress, run.reports[-1].progress] == [33, 100]


def reports_of(items: Any, seconds: float, clock: Any, total: int | None = None) -> list[Any]:
    """Return the reports of a handler that takes so many seconds for each item."""
    reports: list[Any] = []

    def work(things: Any) -> Iterator[Any]:
        for thing in things:
            yield thing
            clock.now += seconds

    def progress(percent: float | None, message: str | None) -> None:
        reports.append((percent, message))

    counted = Counted(items, total, clock)
    for _ in tracked(work(items), counted, progress, lambda: None):
        pass
    return reports


def test_a_tenth_of_a_second_passes_between_two_reports(clock: Any) -> None:
    # 10,000 items in 10 s: the first one, then one each 0.1 s, and the end.
    reports = reports_of(range(10_000), 0.001, clock)
    assert 99 <= len(reports) <= 102
    assert reports[0] == (0.01, None)
    assert reports[-1] == (100, None)
    assert [percent for percent, _ in reports] == sorted(percent for percent, _ in reports)


def test_slow_items_are_reported_each(clock: Any) -> None:
    reports = reports_of([1, 2, 3, 4], 5.0, clock)
    assert [percent for percent, _ in reports] == [25, 50, 75, 100, 100]


def test_items_without_a_length_are_counted_for_people(clock: Any) -> None:
    assert reports_of(iter([1, 2]), 1.0, clock) == [
        (None, "1 done"),
        (None, "2 done"),
        (None, "2 done"),
    ]


def test_more_items_than_were_announced_are_all_of_them(clock: Any) -> None:
    assert [percent for percent, _ in reports_of([1, 2, 3], 1.0, clock, total=2)] == [
        50,
        100,
        100,
        100,
    ]


def test_no_items_are_all_of_them(clock: Any) -> None:
    assert reports_of([], 1.0, clock) == [(100, None)]


async def never_awaits(job: ClaimedJob) -> dict[str, object]:
    seen = 0
    async for _ in job.track(range(10**9)):
        seen += 1
    return {"seen": seen}


def never_reports(job: BlockingJob) -> dict[str, object]:
    return {"seen": sum(1 for _ in job.track(range(10**9)))}


@pytest.mark.parametrize("function", [never_awaits, never_reports])
def test_a_handler_that_only_iterates_can_be_cancelled(function: Callable[..., Any]) -> None:
    assert run_handler(function, cancel_after=1).cancelled


@pytest.mark.parametrize("function", [never_awaits, never_reports])
def test_a_handler_that_only_iterates_can_time_out(function: Callable[..., Any]) -> None:
    run = run_handler(function, timeout=0.05)
    assert run.outcome.reason == "TIMED_OUT"


@pytest.mark.parametrize(("total", "error"), [("3", TypeError), (-1, ValueError)])
def test_a_wrong_total_is_refused_before_the_first_item(total: Any, error: type[Exception]) -> None:
    def plain(job: BlockingJob) -> None:
        job.track([1], total=total)

    async def asynchronous(job: ClaimedJob) -> None:
        job.track([1], total=total)

    for function in (plain, asynchronous):
        raised = run_handler(function).raised
        assert isinstance(raised, error)
        assert str(raised).startswith("total: ")


def test_what_cannot_be_iterated_over_is_refused() -> None:
    async def asynchronous(job: ClaimedJob) -> None:
        job.track(5)

    assert isinstance(run_handler(asynchronous).raised, TypeError)
