"""The results of a stream: in the order of the updates, and no more of them than allowed."""

import asyncio

import pytest

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.rpc.workers import work_results
from jobledger_server.rpc.workers.work_results import Results


def result(job_id: str) -> pb.UpdateResult:
    return pb.UpdateResult(job_id=job_id)


def taken(results: Results) -> list[str]:
    return [pb.UpdateResult.FromString(each).job_id for each in results.take()]


def test_results_come_in_the_order_of_the_updates_whichever_is_known_first() -> None:
    woken: list[str] = []
    results = Results(lambda: woken.append("ready"))
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


async def test_updates_are_read_again_once_results_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work_results, "MAX_WAITING", 2)
    results = Results(lambda: None)
    pending = [results.expect() for _ in range(2)]
    waiting = asyncio.create_task(results.room())
    await asyncio.sleep(0)
    results.settle(pending[0], result("a"))
    await asyncio.sleep(0)
    assert not waiting.done()  # known, and not taken
    assert taken(results) == ["a"]
    await waiting


async def test_no_updates_are_read_while_results_have_too_many_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work_results, "MAX_WAITING_BYTES", 100)
    results = Results(lambda: None)
    results.settle(results.expect(), result("x" * 90))
    await results.room()
    results.settle(results.expect(), result("y" * 90))
    waiting = asyncio.create_task(results.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert len(taken(results)) == 2
    await waiting
