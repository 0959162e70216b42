"""While the event loop is busy the threads beside it do not interrupt it, and else they may."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from jobledger_server import scheduling
from jobledger_server.scheduling import spare_the_loop

OTHER, BATCH = os.SCHED_OTHER, os.SCHED_BATCH

PATIENCE = 60.0


@contextmanager
def a_thread() -> Iterator[threading.Thread]:
    """Have a thread that waits until the block ends."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield thread
    end.set()
    thread.join()


@pytest.fixture
def beside() -> Iterator[threading.Thread]:
    """A thread beside the event loop's."""
    with a_thread() as thread:
        yield thread


def policy_of(thread: threading.Thread) -> int:
    assert thread.native_id is not None
    return os.sched_getscheduler(thread.native_id)


class Clock:
    """A second from look to look, of which the loop's thread works the next of these shares."""

    def __init__(self, look: Callable[[], None], *shares: float) -> None:
        self._look = look
        self._shares = iter((0.0, *shares))
        self._worked = 0.0
        self._now = 0.0

    def thread_time(self) -> float:
        self._look()
        share = next(self._shares, None)
        if share is None:
            raise asyncio.CancelledError
        self._worked += share
        return self._worked

    def monotonic(self) -> float:
        self._now += 1.0
        return self._now


async def looked_at(
    monkeypatch: pytest.MonkeyPatch, look: Callable[[], None], *shares: float
) -> None:
    """Let the loop be looked at so often; `look` is called before each and after the last."""
    monkeypatch.setattr(scheduling, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(scheduling, "time", Clock(look, *shares))
    with suppress(asyncio.CancelledError):
        await spare_the_loop()


async def test_it_is_spared_from_busy_on_until_it_is_calm(
    monkeypatch: pytest.MonkeyPatch, beside: threading.Thread
) -> None:
    seen: list[int] = []
    own: set[int] = set()

    def look() -> None:
        seen.append(policy_of(beside))
        own.add(os.sched_getscheduler(0))

    await looked_at(monkeypatch, look, 0.3, 0.59, 0.61, 0.5, 0.41, 0.39, 0.5, 0.7)
    # What was before the first look, then after each.
    before, *after = seen[1:]
    assert before == OTHER
    assert after == [OTHER, OTHER, BATCH, BATCH, BATCH, OTHER, OTHER, BATCH]
    assert own == {OTHER}
    assert policy_of(beside) == OTHER  # nobody looks any more


async def test_threads_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    with ExitStack() as first, ExitStack() as second:
        threads = [first.enter_context(a_thread())]

        def look() -> None:
            if len(threads) == 1 and policy_of(threads[0]) == BATCH:
                first.close()
                threads.append(second.enter_context(a_thread()))
            elif len(threads) > 1:
                seen.append(policy_of(threads[1]))

        await looked_at(monkeypatch, look, 0.9, 0.9, 0.9)
    assert seen == [BATCH, BATCH]


async def test_what_forbids_it_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, beside: threading.Thread
) -> None:
    asked = 0

    def forbidden(*_: object) -> None:
        nonlocal asked
        asked += 1
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    await looked_at(monkeypatch, lambda: None, 0.9, 0.1, 0.9)
    assert asked > 0
    assert policy_of(beside) == OTHER


async def test_a_policy_that_was_chosen_for_the_process_stays(beside: threading.Thread) -> None:
    os.sched_setscheduler(0, BATCH, os.sched_param(0))
    try:
        await spare_the_loop()
    finally:
        os.sched_setscheduler(0, OTHER, os.sched_param(0))
    assert policy_of(beside) == OTHER


def test_a_server_looks_after_its_own_loop(tmp_path: Path) -> None:
    """One that takes itself for busy always: how busy a test makes it depends on the machine."""
    program = (
        "from jobledger_server import scheduling; scheduling.BUSY = scheduling.CALM = 0.0; "
        "from jobledger_server.__main__ import main; main()"
    )
    database = f"sqlite:///{tmp_path / 'jobledger.db'}"
    serve = ["serve", "--listen", "127.0.0.1:0", "--database", database]
    with subprocess.Popen(
        [sys.executable, "-c", program, *serve], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            while json.loads(server.stderr.readline())["event"] != "serving":
                pass
            last = time.monotonic() + PATIENCE
            while BATCH not in policies_beside(server.pid):
                assert time.monotonic() < last
                time.sleep(0.02)
            assert os.sched_getscheduler(server.pid) == OTHER
            server.terminate()
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()


def policies_beside(pid: int) -> set[int]:
    """Return the policies of a process's threads but the first, where the event loop runs."""
    threads = (int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())
    return {os.sched_getscheduler(thread) for thread in threads if thread != pid}
