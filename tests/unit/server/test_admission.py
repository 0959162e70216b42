"""Limits for each caller and for all, and turns between callers."""

import asyncio

import pytest

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import SERVICE, Caller
from jobledger_server.admission.fair_queue import FairQueue, Turns
from jobledger_server.domain.errors import LimitExceeded

ADA, GRACE, EVE = Caller("1.1.1.1:1", "ada"), Caller("1.1.1.1:1", "grace"), Caller("2.2.2.2:2")


def test_one_caller_cannot_take_what_is_left_for_others() -> None:
    watches = Admission("watches", total=10, each=2)
    watches.acquire(ADA, 2)
    with pytest.raises(LimitExceeded) as refused:
        watches.acquire(ADA)
    assert (refused.value.value, refused.value.scope) == (2, "caller")
    watches.acquire(GRACE)


def test_all_callers_together_cannot_take_more_than_the_total() -> None:
    watches = Admission("watches", total=3, each=2)
    watches.acquire(ADA, 2)
    watches.acquire(GRACE)
    with pytest.raises(LimitExceeded) as refused:
        watches.acquire(Caller(ADA.origin, "bob"))
    assert (refused.value.value, refused.value.scope) == (3, "server")
    watches.release(GRACE)
    watches.acquire(Caller(ADA.origin, "bob"))


def test_many_connections_cannot_shut_out_another_one() -> None:
    watches = Admission("watches", total=100, each=50)
    for number in range(10):
        for _ in range(10):
            watches.acquire(Caller(f"2.2.2.2:{number}", "eve"))
    with pytest.raises(LimitExceeded):
        watches.acquire(Caller("2.2.2.2:0", "made up"))
    for number in range(9):  # an equal part of 100 for each of 11 connections
        watches.acquire(Caller(ADA.origin, f"{number}"))
    with pytest.raises(LimitExceeded) as refused:
        watches.acquire(ADA)
    assert refused.value.scope == "server"


def test_admission_that_cannot_be_refused_counts_against_the_limit() -> None:
    answers = Admission("bytes", total=10, each=5)
    answers.acquire(ADA, 5)
    answers.acquire(ADA, 5, refuse=False)
    with pytest.raises(LimitExceeded):
        answers.acquire(ADA)
    answers.release(ADA, 10)
    answers.acquire(ADA)


def test_a_request_heavier_than_the_limit_is_admitted_alone() -> None:
    queued = Admission("bytes", total=10, each=5)
    queued.acquire(ADA, 20)
    with pytest.raises(LimitExceeded):
        queued.acquire(ADA)
    queued.release(ADA, 20)
    queued.acquire(ADA)


def test_a_caller_releases_all_that_it_held() -> None:
    watches = Admission("watches", total=10, each=2)
    with watches.admit(ADA), watches.admit(ADA):
        assert watches.held == 2
    watches.acquire(ADA, 2)


def test_callers_are_served_in_turn_whatever_one_of_them_queues() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(3):
        queue.put(EVE, f"eve {number}")
    queue.put(ADA, "ada")
    queue.put(GRACE, "grace")
    assert [queue.pop() for _ in range(len(queue))] == ["eve 0", "ada", "eve 1", "grace", "eve 2"]


def test_heavy_requests_wait_for_light_ones_of_other_callers() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(2):
        queue.put(EVE, "eve", 1000)
    for _ in range(3):
        queue.put(ADA, "ada", 1)
    assert [queue.pop() for _ in range(5)] == ["eve", "ada", "ada", "ada", "eve"]


def test_new_connections_that_keep_coming_do_not_stand_before_one_that_was_served() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(3):
        queue.put(SERVICE, f"service {number}")
    for number in range(9):
        queue.put(Caller(f"2.2.2.2:{number}"), "new")
    served = []
    for number in range(9, 50):
        served.append(queue.pop())
        queue.put(Caller(f"2.2.2.2:{number}"), "new")
    turns = [served.index(f"service {number}") for number in range(3)]
    # Ten wait at any time, and each turn comes after two of each of them at most.
    assert all(turn <= 20 * number for number, turn in enumerate(turns)), turns


def test_the_services_own_work_is_never_refused_admission() -> None:
    queued = Admission("commands", total=1, each=1)
    queued.acquire(SERVICE, 5)
    queued.acquire(SERVICE, 5)
    with pytest.raises(LimitExceeded):
        queued.acquire(ADA)


def test_invented_user_names_gain_a_connection_no_extra_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(1000):
        queue.put(Caller("2.2.2.2:2", f"made up {number}"), "eve")
    queue.put(ADA, "ada")
    assert [queue.pop() for _ in range(2)] == ["eve", "ada"]


async def test_slots_go_to_callers_in_turn_and_a_cancelled_wait_loses_none() -> None:
    turns = Turns(1)
    served: list[str] = []
    release = asyncio.Event()

    async def work(caller: Caller, name: str) -> None:
        async with turns.turn(caller):
            served.append(name)
            await release.wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(work(EVE, f"eve {number}"))
        leaving = tasks.create_task(work(EVE, "left"))
        tasks.create_task(work(ADA, "ada"))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        release.set()
    assert served == ["eve 0", "eve 1", "ada", "eve 2"]
    async with turns.turn(SERVICE):
        pass


async def test_a_cancelled_waiter_does_not_lose_the_slot_that_it_was_given() -> None:
    turns = Turns(1)

    async def wait() -> None:
        async with turns.turn(SERVICE):
            pass

    async with turns.turn(SERVICE):
        leaving = [asyncio.create_task(wait()) for _ in range(3)]
        staying = asyncio.create_task(wait())
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()  # it has not run since the slot was passed on
    async with asyncio.timeout(1):
        await staying
        await wait()
    assert all(task.cancelled() for task in await _ended(leaving))


async def _ended(tasks: list[asyncio.Task[None]]) -> list[asyncio.Task[None]]:
    await asyncio.wait(tasks)
    return tasks
