"""Things that arrive together are done together, one batch after the other."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from jobledger_server.admission.caller import SERVICE, Caller
from jobledger_server.admission.endings import ShuttingDown
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.ledger import batcher as batcher_module
from jobledger_server.ledger.batcher import AGAIN, Batcher
from jobledger_server.store import StoreUnavailable
from tests.support.gated_store import Gate


class Work:
    """Doubles numbers and remembers the batches; holds up each batch at a gate if given one."""

    def __init__(self, gate: Gate | None = None) -> None:
        self.batches: list[list[int]] = []
        self._gate = gate

    async def __call__(self, batch: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(batch))
        if self._gate is not None:
            await self._gate()
        if 13 in batch:
            raise RuntimeError("unlucky")
        return [ValueError(n) if n < 0 else 2 * n for n in batch]


async def submitted(
    batcher: Batcher[int, int], *numbers: int, caller: Caller = SERVICE
) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batcher.submit(n, caller)) for n in numbers]
    await asyncio.sleep(0)  # each task runs until it waits
    return tasks


async def test_items_that_arrive_during_a_batch_form_the_next_batch() -> None:
    gate = Gate()
    work = Work(gate)
    async with Batcher("numbers", work, max_batch=10, max_waiting=10) as batcher:
        first = await submitted(batcher, 1)
        await gate.reached.wait()
        rest = await submitted(batcher, 2, 3, 4)
        gate.open()
        assert await asyncio.gather(*first, *rest) == [2, 4, 6, 8]
    assert work.batches == [[1], [2, 3, 4]]


async def test_a_batch_is_never_larger_than_allowed() -> None:
    work = Work()
    async with Batcher("numbers", work, max_batch=2, max_waiting=10) as batcher:
        await asyncio.gather(*await submitted(batcher, 1, 2, 3, 4, 5))
    assert work.batches == [[1, 2], [3, 4], [5]]


async def test_the_error_of_one_item_fails_no_other_item() -> None:
    async with Batcher("numbers", Work(), max_batch=10, max_waiting=10) as batcher:
        good, bad, also_good = await submitted(batcher, 1, -1, 2)
        assert (await good, await also_good) == (2, 4)
        with pytest.raises(ValueError, match="-1"):
            await bad


async def test_items_that_are_put_together_share_a_batch_and_no_error() -> None:
    work = Work()
    async with Batcher("numbers", work, max_batch=2, max_waiting=10) as batcher:
        first, rest = batcher.put([1], SERVICE), batcher.put([-1, 2, 3], SERVICE)
        assert await first == [2]
        error, *doubled = await rest
        assert (str(error), doubled) == ("-1", [4, 6])
    assert work.batches == [[1, -1, 2, 3]]


async def test_putting_no_items_is_answered_at_once_and_makes_no_batch() -> None:
    """The reaper puts none while nothing is overdue: it would wait for another caller's."""
    work = Work()
    async with Batcher("numbers", work, max_batch=2, max_waiting=10) as batcher:
        none = batcher.put([], SERVICE)
        assert none.done()
        assert await none == []
    assert work.batches == []


async def test_an_exception_of_a_batch_fails_all_its_items_and_the_next_batch_runs() -> None:
    async with Batcher("numbers", Work(), max_batch=2, max_waiting=10) as batcher:
        for task in await submitted(batcher, 13, 1):
            with pytest.raises(RuntimeError, match="unlucky"):
                await task
        assert await batcher.submit(2, SERVICE) == 4


async def test_a_cancelled_caller_cancels_neither_its_item_nor_others() -> None:
    gate = Gate()
    work = Work(gate)
    async with Batcher("numbers", work, max_batch=10, max_waiting=10) as batcher:
        leaver, stayer = await submitted(batcher, 1, 2)
        await gate.reached.wait()
        leaver.cancel()
        gate.open()
        assert await stayer == 4
    assert work.batches == [[1, 2]]


async def test_an_item_above_the_waiting_limit_is_refused_at_once() -> None:
    ada = Caller("1.1.1.1:1", "ada")
    gate = Gate()
    async with Batcher("numbers", Work(gate), max_batch=1, max_waiting=3) as batcher:
        doing = await submitted(batcher, 1, caller=ada)
        await gate.reached.wait()
        waiting = await submitted(batcher, 2, 3, caller=ada)
        with pytest.raises(LimitExceeded) as refused:
            await batcher.submit(4, ada)
        assert (refused.value.limit, refused.value.value) == ("waiting_numbers", 3)
        gate.open()
        assert await asyncio.gather(*doing, *waiting) == [2, 4, 6]


async def test_what_is_refused_for_its_bytes_takes_no_place() -> None:
    ada, gate = Caller("1.1.1.1:1", "ada"), Gate()
    limits = {"max_batch": 1, "max_waiting": 3, "max_waiting_bytes": 100}
    async with Batcher("numbers", Work(gate), measure=lambda n: n, **limits) as batcher:
        first = batcher.put([60], ada)
        await gate.reached.wait()
        try:
            for _ in range(3):
                with pytest.raises(LimitExceeded) as refused:
                    batcher.put([60], ada)
                assert refused.value.limit == "waiting_numbers_bytes"
            others = batcher.put([1], ada), batcher.put([2], ada)
        finally:
            gate.open()
        assert await asyncio.gather(first, *others) == [[120], [2], [4]]


async def test_the_batcher_never_refuses_the_service_and_callers_share_the_rest() -> None:
    gate = Gate()
    work = Work(gate)
    eve, ada = Caller("2.2.2.2:2"), Caller("1.1.1.1:1", "ada")
    async with Batcher("numbers", work, max_batch=2, max_waiting=4, share=0.5) as batcher:
        futures = [batcher.put([1], eve), batcher.put([2], eve)]
        await gate.reached.wait()
        with pytest.raises(LimitExceeded) as refused:
            batcher.put([3], eve)
        assert (refused.value.value, refused.value.scope) == (2, "caller")
        futures += [batcher.put([4], ada), batcher.put([5], ada)]
        futures += [batcher.put([6], SERVICE), batcher.put([7], SERVICE)]
        gate.open()
        assert await asyncio.gather(*futures) == [[2], [4], [8], [10], [12], [14]]
    assert work.batches == [[1, 2], [4, 6], [5, 7]]


async def test_accepted_items_are_finished_before_the_batcher_closes() -> None:
    gate = Gate()
    work = Work(gate)
    async with Batcher("numbers", work, max_batch=1, max_waiting=10) as batcher:
        tasks = await submitted(batcher, 1, 2, 3)
        await gate.reached.wait()
        asyncio.get_running_loop().call_soon(gate.open)
    assert [task.result() for task in tasks] == [2, 4, 6]


async def test_a_closed_batcher_says_that_the_server_shuts_down() -> None:
    async with Batcher("numbers", Work(), max_batch=1, max_waiting=10) as batcher:
        pass
    with pytest.raises(ShuttingDown):
        batcher.put([1], SERVICE)


async def test_each_result_is_observed_before_it_is_returned() -> None:
    observed: list[tuple[str, int, int | Exception]] = []
    ada = Caller("1.1.1.1:1", "ada")

    def observe(caller: Caller, item: int, result: int | Exception) -> None:
        observed.append((caller.name, item, result))

    async with Batcher("numbers", Work(), max_batch=10, max_waiting=10, observe=observe) as batcher:
        doubled, error = await batcher.put([1, -1], ada)
        assert observed == [("ada", 1, doubled), ("ada", -1, error)]


async def test_items_that_wait_fail_at_the_close_while_the_database_is_unavailable() -> None:
    gate = Gate()
    batches = []

    async def fail(batch: Sequence[int]) -> Sequence[int]:
        batches.append(batch)
        await gate()
        raise StoreUnavailable("no answer")

    async with Batcher("numbers", fail, max_batch=1, max_waiting=10) as batcher:
        tasks = await submitted(batcher, 1, 2, 3)
        await gate.reached.wait()
        asyncio.get_running_loop().call_soon(gate.open)
    assert batches == [[1]]
    assert [type(task.exception()) for task in tasks] == [StoreUnavailable] * 3
    assert batcher.held == 0


@pytest.fixture
def endless_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: a batch that waits for callers waits until they are there."""
    monkeypatch.setattr(batcher_module, "TICK_SECONDS", 3600)


@pytest.fixture
async def ticks(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """The end of each tick that the batcher of a test has begun, in their order."""
    loop = asyncio.get_running_loop()
    call_later = loop.call_later
    begun: list[Callable[[], None]] = []

    def noted(delay: float, end: Callable[[], None], *arguments: object) -> asyncio.TimerHandle:
        if delay == batcher_module.TICK_SECONDS:
            begun.append(end)
        return call_later(delay, end, *arguments)

    monkeypatch.setattr(loop, "call_later", noted)
    return begun


@pytest.mark.usefixtures("endless_ticks")
async def test_a_batch_waits_for_returning_callers_and_a_single_caller_does_not_wait() -> None:
    work = Work()
    async with Batcher("numbers", work, max_batch=10, max_waiting=10) as batcher:
        assert [await batcher.submit(n, SERVICE) for n in (1, 2, 3)] == [2, 4, 6]
        assert work.batches == [[1], [2], [3]]
        await asyncio.gather(*await submitted(batcher, 4, 5, 6))
        early = await submitted(batcher, 7, 8)
        assert work.batches[3:] == [[4, 5, 6]]
        late = await submitted(batcher, 9)
        await asyncio.gather(*early, *late)
        assert work.batches[4:] == [[7, 8, 9]]
        # At the end there is no wait for callers that do not return.
        last = await submitted(batcher, 0)
    assert await last[0] == 0


@pytest.mark.usefixtures("endless_ticks")
async def test_a_batch_that_is_full_by_bytes_does_not_wait() -> None:
    work = Work()
    async with Batcher(
        "numbers", work, max_batch=10, max_batch_bytes=10, max_waiting=10, measure=lambda n: n
    ) as batcher:
        await asyncio.gather(*await submitted(batcher, 1, 2, 3))
        async with asyncio.timeout(10):
            await asyncio.gather(*await submitted(batcher, 5, 6))
    assert work.batches == [[1, 2, 3], [5, 6]]


@pytest.mark.usefixtures("endless_ticks")
async def test_a_waiting_batch_is_not_woken_for_each_item(
    ticks: list[Callable[[], None]],
) -> None:
    """Woken too early, it would begin another tick."""
    work = Work()
    async with Batcher("numbers", work, max_batch=10, max_waiting=10) as batcher:
        await asyncio.gather(*await submitted(batcher, *range(4)))
        early = await submitted(batcher, 1)
        await asyncio.sleep(0)  # now it waits for three more
        late = []
        for number in (2, 3, 4):
            late += await submitted(batcher, number)
        await asyncio.gather(*early, *late)
    assert (work.batches[1:], len(ticks)) == ([[1, 2, 3, 4]], 1)


async def test_callers_that_do_not_return_cost_two_idle_ticks(
    ticks: list[Callable[[], None]],
) -> None:
    work = Work()
    async with Batcher("numbers", work, max_batch=10, max_waiting=10) as batcher:
        await asyncio.gather(*await submitted(batcher, 1, 2, 3, 4))
        assert [await batcher.submit(n, SERVICE) for n in (5, 6)] == [10, 12]
    assert work.batches == [[1, 2, 3, 4], [5], [6]]
    assert len(ticks) == batcher_module.QUIET_TICKS


@pytest.mark.usefixtures("endless_ticks")
async def test_a_batch_waits_for_a_bounded_number_of_ticks(
    ticks: list[Callable[[], None]],
) -> None:
    """So that of very many one part is answered while the database works for another."""
    work = Work()
    async with Batcher("numbers", work, max_batch=100, linger_ticks=3, max_waiting=100) as batcher:
        await asyncio.gather(*await submitted(batcher, *range(100, 150)))
        tasks = await submitted(batcher, 99)
        async with asyncio.timeout(10):
            for number in range(3):
                while len(ticks) <= number:
                    await asyncio.sleep(0)
                tasks += await submitted(batcher, number)
                ticks[number]()
            assert await tasks[0] == 198
        assert work.batches[1] == [99, 0, 1, 2]
        await asyncio.gather(*tasks)


async def test_nobody_waits_for_a_batcher_that_failed() -> None:
    def broken(caller: Caller, item: int, result: object) -> None:
        raise OSError

    async with Batcher("numbers", Work(), max_batch=1, max_waiting=10, observe=broken) as batcher:
        waiting = [batcher.put([number], SERVICE) for number in range(2)]
        await asyncio.wait(waiting, timeout=5)
        assert all(each.cancelled() for each in waiting)
        with pytest.raises(ShuttingDown):
            batcher.put([2], SERVICE)
    assert batcher.task is not None
    assert isinstance(batcher.task.exception(), OSError)


async def test_an_item_that_is_not_done_lets_others_in_and_is_in_a_later_batch_again() -> None:
    gate = Gate()
    batches: list[list[int]] = []

    async def work(batch: Sequence[int]) -> Sequence[int | None]:
        batches.append(list(batch))
        await gate()
        return [AGAIN if n == 1 and len(batches) < 3 else 2 * n for n in batch]

    ada, bob = Caller("1.1.1.1:1", "ada"), Caller("2.2.2.2:1", "bob")
    async with Batcher("numbers", work, max_batch=1, max_waiting=2) as batcher:
        (first,) = await submitted(batcher, 1, caller=ada)
        await gate.reached.wait()
        (other,) = await submitted(batcher, 2, caller=bob)
        with pytest.raises(LimitExceeded):  # it still counts as waiting
            await batcher.submit(3, bob)
        gate.open()
        assert await asyncio.gather(first, other) == [2, 4]
        assert batcher.held == 0
    assert batches == [[1], [2], [1]]


async def test_what_items_have_in_common_counts_once_in_a_batch() -> None:
    """Numbers with the same last digit have that in common; it counts as two more."""

    def touch(number: int) -> dict[int, int]:
        return {number % 10: 2}

    for numbers, sizes in ((range(0, 90, 10), [4, 4, 1]), (range(9), [2, 2, 2, 2, 1])):
        work = Work()
        batcher = Batcher("numbers", work, max_batch=6, max_waiting=10, touch=touch)
        async with batcher:
            await asyncio.gather(*await submitted(batcher, *numbers))
        assert [len(batch) for batch in work.batches] == sizes


async def test_items_that_touch_more_are_served_less_often() -> None:
    work, gate = Work(), Gate()
    work = Work(gate)
    ada, eve = Caller("ada"), Caller("eve")
    touch = {1: {}, 2: {"a": 3, "b": 3, "c": 3}}
    batcher = Batcher("numbers", work, max_batch=1, max_waiting=99, touch=touch.__getitem__)
    async with batcher:
        first = await submitted(batcher, 1)
        await gate.reached.wait()
        asked = [
            await submitted(batcher, 2, 2, caller=eve),
            await submitted(batcher, *[1] * 9, caller=ada),
        ]
        gate.open()
        await asyncio.gather(*first, *asked[0], *asked[1])
    order = [batch[0] for batch in work.batches]
    assert order.count(1) == 10
    second = len(order) - 1 - order[::-1].index(2)
    assert second > 8
