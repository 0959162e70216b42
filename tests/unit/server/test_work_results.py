"""The results of a stream: in the order of the updates, and no more of them than allowed."""

import asyncio
from collections.abc import Callable

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import Caller
from jobledger_server.rpc.workers.work_results import Results
from jobledger_server.tuning import Tuning

CALLER = Caller("eve")


def results_of(
    ready: Callable[[], object] = lambda: None, **tuning: int
) -> tuple[Results, Admission]:
    """Return the results of a stream, and what counts their bytes."""
    held = Admission("waiting_bytes", total=1, each=1)
    return Results(ready, held, CALLER, Tuning(**tuning)), held


def result(job_id: str) -> pb.UpdateResult:
    return pb.UpdateResult(job_id=job_id)


def taken(results: Results) -> list[str]:
    return [pb.UpdateResult.FromString(each).job_id for each in results.take()]


def test_results_come_in_the_order_of_the_updates_whichever_is_known_first() -> None:
    woken: list[str] = []
    results, _ = results_of(lambda: woken.append("ready"))
    first, second, third = results.expect(), results.expect(), results.expect()
    results.settle(second, result("b"))
    assert (taken(results), woken) == ([], [])
    results.settle(first, result("a"))
    assert woken == ["ready"]
    assert taken(results) == ["a", "b"]
    assert len(results) == 1
    results.settle(third, result("c"))
    assert taken(results) == ["c"]
    assert not results


async def test_updates_are_read_again_once_results_are_taken() -> None:
    results, _ = results_of(unsent_results=2)
    pending = [results.expect() for _ in range(2)]
    waiting = asyncio.create_task(results.room())
    await asyncio.sleep(0)
    results.settle(pending[0], result("a"))
    await asyncio.sleep(0)
    assert not waiting.done()  # known, and not taken
    assert taken(results) == ["a"]
    await waiting


async def test_no_updates_are_read_while_results_have_too_many_bytes() -> None:
    results, _ = results_of(unsent_result_bytes=100)
    results.settle(results.expect(), result("x" * 90))
    await results.room()
    results.settle(results.expect(), result("y" * 90))
    waiting = asyncio.create_task(results.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert len(taken(results)) == 2
    await waiting


def test_the_bytes_of_results_are_counted_for_their_caller_until_they_are_sent() -> None:
    results, held = results_of()
    pending = [results.expect() for _ in range(3)]
    for each in pending[:2]:
        results.settle(each, result("a"))
    assert held.held == 2 * result("a").ByteSize()
    next(results.take())
    assert held.held == result("a").ByteSize()
    results.close()
    results.settle(pending[2], result("a"))
    assert held.held == 0
