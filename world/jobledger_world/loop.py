"""An event loop in which time is simulated and a seed decides what runs first.

It has no selector, no thread and no clock: when nothing is ready, the time becomes that of the next
timer. So a week passes in the time that its steps take, and the same seed gives the same run.

Tasks belong to nodes, which stand for processes: one can crash, or freeze for a while, wherever one
of its tasks awaits something. The idea is FoundationDB's (Zhou et al., "FoundationDB: A Distributed
Unbundled Transactional Key Value Store", 2021, section 4).
"""

import asyncio
import concurrent.futures
import contextvars
import gc
import hashlib
import heapq
import logging
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, TypeVar, TypeVarTuple, cast

from sqlalchemy.util import greenlet_spawn

from jobledger_world.chance import Chance
from jobledger_world.nodes import Node, NodeLoop, current_node, node_of
from jobledger_world.refusals import PROCESSES, NoInputOutput, refused
from jobledger_world.tasks import OF_A_TASK, Future, Handle, Task, Work

__all__ = ["Endless", "Node", "Stuck", "WorldLoop", "current_node"]

Result = TypeVar("Result")
Ts = TypeVarTuple("Ts")

MAX_STEPS = 20_000_000
"""A run with more steps has gone wrong: something repeats without a pause."""

MOST_AWAITS = 100
"""How often a coroutine may await something at its end."""


class Stuck(Exception):
    """Nothing can happen any more, and the run has not ended."""


class Endless(Exception):
    """The run took MAX_STEPS."""


class WorldLoop(NoInputOutput, NodeLoop):
    """See the module.

    Args:
        chance: Decides the order of tasks that are ready at the same time.
        shuffle: How often it does, from 0 to 1; else they run in the order they became ready.

    Attributes:
        busy: Seconds for which a real loop would be busy before it looks for what has come since.
            All of that runs together then. Without it no two events ever come at the same time.
        steps: Steps of tasks that have run.
        max_steps: The run fails after so many.
        errors: What asyncio would have logged: exceptions that nobody retrieved.
        trace: What happened, step by step, if it was asked for.
    """

    def __init__(
        self, chance: Chance, *, shuffle: float = 0.0, trace: list[str] | None = None
    ) -> None:
        self.busy = 0.0
        self.steps = 0
        self.errors: list[dict[str, Any]] = []
        self.trace = trace
        self._random = chance.of("loop")
        self._executor_random = chance.of("executor")
        self._shuffle = shuffle
        self.max_steps = MAX_STEPS
        self._now = 0.0
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        # Apart from each other, for Pythons differ in how many timers they make.
        self._timer_numbers, self._numbers = count(), count()
        self._digest = hashlib.blake2b(digest_size=8)
        self._graveyard: list[Handle | asyncio.Task[Any]] = []
        self._interruption: BaseException | None = None
        self._running = self._closed = False

    @property
    def hash(self) -> str:
        """A number of what has happened so far: equal runs have equal ones."""
        return self._digest.hexdigest()

    def record(self, *facts: object) -> None:
        """Add what happens to the trace."""
        line = " ".join((f"{self._now:.6f}", *map(str, facts)))
        self._digest.update(line.encode())
        if self.trace is not None:
            self.trace.append(line)

    def resume(self, handles: list[Handle]) -> None:
        """Run these next."""
        self._ready.extend(handles)

    def bury(self, node: Node, handles: list[Handle]) -> None:
        """Keep what a dead node would have run: at their end, coroutines would run once more."""
        self._graveyard.extend(handles)
        self._graveyard.extend(self.tasks(node))

    def tasks(self, node: Node | None) -> list[asyncio.Task[Any]]:
        """Return the node's tasks that are not done, the oldest first."""
        tasks = [t for t in asyncio.all_tasks(self) if isinstance(t, Task) and t.node is node]
        return sorted(tasks, key=hash)

    # Time and callbacks.

    def time(self) -> float:
        return self._now

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Any:
        handle = Handle(callback, args, context, self._now)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Any:
        handle = Handle(callback, args, context, when)
        heapq.heappush(self._timers, (when, next(self._timer_numbers), handle))
        return handle

    def create_future(self) -> Any:
        future: Future[Any] = Future(loop=self)
        future.number = next(self._numbers)
        return future

    def create_task(
        self,
        coro: Generator[Any, None, Result] | Coroutine[Any, Any, Result],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_: Any,
    ) -> asyncio.Task[Result]:
        number = next(self._numbers)
        work = Work(coro, self._interrupted)
        task: Task[Result] = Task(
            number, work, loop=self, name=name or f"task-{number}", context=context
        )
        task.node = current_node() if context is None else node_of(context)
        return task

    def run_in_executor(
        self, executor: Any, func: Callable[[*Ts], Result], *args: *Ts
    ) -> "asyncio.Future[Result]":
        """Run it a little later, in a greenlet that stands for the thread: see `blocking`."""
        if isinstance(executor, concurrent.futures.ProcessPoolExecutor):
            raise refused("loop.run_in_executor", PROCESSES)

        future: asyncio.Future[Result] = self.create_future()

        async def run() -> None:
            await asyncio.sleep(self._executor_random.uniform(0.0001, 0.002))
            if future.cancelled():
                return
            try:
                result: Result = await greenlet_spawn(func, *args)
            except Exception as error:  # noqa: BLE001  # its caller's
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)

        self.create_task(run())
        return future

    # Running.

    def run_until_complete(self, future: Any) -> Any:
        """Run until the future is done.

        Raises:
            Stuck: Nothing can happen any more.
            Endless: It took too many steps.
        """
        __tracebackhide__ = True  # pytest shows the lines of the test
        main = asyncio.ensure_future(future, loop=self)
        hooks = sys.get_asyncgen_hooks()
        asyncio._set_running_loop(self)  # public: for event loops  # noqa: SLF001
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._finalize)
        self._running = True
        try:
            while not main.done():
                self._run_once()
        finally:
            self._running = False
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(None)  # noqa: SLF001
        return main.result()

    def _finalize(self, generator: Any) -> None:
        if not self._closed:
            self.create_task(generator.aclose())

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise Stuck
            self._now = max(self._now, timers[0][0] + self.busy)
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        if self._shuffle and len(ready) > 1:
            self._mix()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.is_cancelled:
                self._run_one(handle)
        if self.steps > self.max_steps:
            raise Endless

    def _run_one(self, handle: Handle) -> None:
        node = node_of(handle.context)
        if node is not None and node.state != "up":
            if node.state == "frozen":
                node.park(handle)
            else:
                self._graveyard.append(handle)
            return
        task = handle.task
        if task is not None:  # callbacks are not counted: Pythons differ in them
            self.steps += 1
            self.record("" if node is None else node.name, task.get_name())
        try:
            handle.context.run(handle.callback, *handle.args)
        except OF_A_TASK as error:
            self.call_exception_handler({"message": "a callback failed", "exception": error})
        if self._interruption is not None:
            raise self._interruption

    def _interrupted(self, error: BaseException) -> None:
        self._interruption = error

    def _mix(self) -> None:
        """Sometimes change the order of tasks that are ready, but not of what one has to do.

        What is no task's comes first and decides nothing: Pythons differ in it.
        """
        lanes: dict[Task[Any] | None, deque[Handle]] = {None: deque()}
        for handle in self._ready:
            lanes.setdefault(handle.task, deque()).append(handle)
        first, *left = lanes.values()
        if len(left) < 2 or self._random.random() >= self._shuffle:  # noqa: PLR2004
            return
        self._ready.clear()
        self._ready.extend(first)
        while left:
            index = self._random.randrange(len(left))
            self._ready.append(left[index].popleft())
            if not left[index]:
                del left[index]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the error, unless its node is dead."""
        node = current_node()
        if not self._closed and (node is None or node.state != "dead"):
            self.errors.append(context)

    # The rest of what asyncio asks of a loop.

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def get_debug(self) -> bool:
        return False

    def close(self) -> None:
        """End what is left, and free it: not later, when something else runs.

        Coroutines run their `finally`, but nothing that these begin runs.
        """
        self._closed = True
        with _unheard():
            for task in sorted(asyncio.all_tasks(self), key=hash):
                _end(cast("Coroutine[Any, Any, Any]", task.get_coro()))
            self._graveyard.clear()
            self._ready.clear()
            self._timers.clear()
            gc.collect()


def _end(work: Coroutine[Any, Any, Any]) -> None:
    """End a coroutine, and again while it awaits something at its end."""
    for _ in range(MOST_AWAITS):
        with suppress(BaseException):  # what it raises at its end concerns nobody
            work.close()
            return


@contextmanager
def _unheard() -> Iterator[None]:
    """Let nobody hear of what the coroutines of dead processes do when they are freed."""
    hook, disabled = sys.unraisablehook, logging.root.manager.disable
    sys.unraisablehook = lambda _: None
    logging.disable()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)
        sys.unraisablehook = hook
