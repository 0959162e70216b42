"""An event loop in which time is simulated and a seed decides what runs first.

It has no selector, no thread and no clock: when nothing is ready, the time becomes that of the next
timer. So a week passes in the time that its steps take, and the same seed gives the same run.

Tasks belong to nodes, which stand for processes: one can crash, or freeze for a while, wherever one
of its tasks awaits something. The idea is FoundationDB's (Zhou et al., "FoundationDB: A Distributed
Unbundled Transactional Key Value Store", 2021, section 4).
"""

import asyncio
import contextvars
import hashlib
import heapq
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Literal, TypeVar, TypeVarTuple

from jobledger.testing.world.chance import Chance

Result = TypeVar("Result")
Ts = TypeVarTuple("Ts")

MAX_STEPS = 20_000_000
"""A run with more steps has gone wrong: something repeats without a pause."""


class Stuck(Exception):
    """Nothing can happen any more, and the run has not ended."""


class Endless(Exception):
    """The run took MAX_STEPS."""


class Handle:
    """A callback that is to run: asyncio's handle, as far as asyncio itself uses it."""

    __slots__ = ("_args", "_callback", "_cancelled", "_when", "context")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        when: float,
    ) -> None:
        self._callback = callback
        self._args = args
        self._when = when
        self._cancelled = False
        self.context = contextvars.copy_context() if context is None else context

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when

    def run(self) -> None:
        self.context.run(self._callback, *self._args)

    @property
    def task(self) -> "Task[Any] | None":
        """The task whose next step this is."""
        owner = getattr(self._callback, "__self__", None)
        return owner if isinstance(owner, Task) else None


class _Numbered:
    """Hashed by a number instead of its address, so that sets have the same order in each run."""

    _number: int | None = None
    get_loop: Callable[[], Any]

    def __hash__(self) -> int:
        if self._number is None:
            self._number = self.get_loop().next_number()
        return self._number


class Task(_Numbered, asyncio.Task[Result]):
    """See `_Numbered`."""


class Future(_Numbered, asyncio.Future[Result]):
    """See `_Numbered`."""


class Node:
    """A simulated process. Its tasks, and the tasks that they start, belong to it.

    Attributes:
        name: Stands in the trace.
        state: A `frozen` node runs nothing until it is thawed; a `dead` one never again.
    """

    def __init__(self, loop: "WorldLoop", name: str) -> None:
        self.name = name
        self.state: Literal["up", "frozen", "dead"] = "up"
        self._loop = loop
        self._parked: list[Handle] = []
        self._context = contextvars.copy_context()
        self._context.run(_node.set, self)

    @property
    def context(self) -> contextvars.Context:
        """A new context: what runs in it belongs to this node."""
        return self._context.copy()

    def start(
        self, work: Coroutine[Any, Any, Result], name: str | None = None
    ) -> asyncio.Task[Result]:
        """Start a task of this node."""
        context = self.context
        return context.run(self._loop.create_task, work, name=name, context=context)

    def freeze(self) -> None:
        """Run nothing of this node until `thaw`, as if its process were stopped."""
        if self.state == "up":
            self.state = "frozen"

    def thaw(self) -> None:
        """Go on after `freeze`."""
        if self.state == "frozen":
            self.state = "up"
            self._loop.resume(self._parked)
            self._parked = []

    def kill(self) -> None:
        """Run nothing of this node any more, not even what it would do at its end."""
        self.state = "dead"
        self._loop.bury(self._parked)
        self._parked = []

    def park(self, handle: Handle) -> None:
        """Keep what a frozen node would run."""
        self._parked.append(handle)


_node: contextvars.ContextVar[Node | None] = contextvars.ContextVar("jobledger_node", default=None)


def current_node() -> Node | None:
    """Return the node that runs now; None outside of all nodes."""
    return _node.get()


class WorldLoop(asyncio.AbstractEventLoop):
    """See the module.

    Args:
        chance: Decides the order of tasks that are ready at the same time.
        shuffle: How often it does, from 0 to 1; else they run in the order they became ready.
        max_steps: The run fails after so many.

    Attributes:
        steps: Callbacks that have run.
        errors: What asyncio would have logged: exceptions that nobody retrieved.
        trace: What happened, step by step, if it was asked for.
    """

    def __init__(
        self,
        chance: Chance,
        *,
        shuffle: float = 0.0,
        max_steps: int = MAX_STEPS,
        trace: list[str] | None = None,
    ) -> None:
        self.steps = 0
        self.errors: list[dict[str, Any]] = []
        self.trace = trace
        self._random = chance.of("loop")
        self._executor_random = chance.of("executor")
        self._shuffle = shuffle
        self._max_steps = max_steps
        self._now = 0.0
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = 0
        self._digest = hashlib.blake2b(digest_size=8)
        self._graveyard: list[Handle] = []
        self._running = self._stopping = self._closed = False

    @property
    def hash(self) -> str:
        """A number of what has happened so far: equal runs have equal ones."""
        return self._digest.hexdigest()

    def record(self, *facts: object) -> None:
        """Add what the world does to the trace."""
        self._record(" ".join(map(str, facts)))

    def _record(self, text: str) -> None:
        line = f"{self._now:.6f} {text}"
        self._digest.update(line.encode())
        if self.trace is not None:
            self.trace.append(line)

    def resume(self, handles: list[Handle]) -> None:
        """Run these next."""
        self._ready.extend(handles)

    def bury(self, handles: list[Handle]) -> None:
        """Keep these without running them: at their end, coroutines would run once more."""
        self._graveyard.extend(handles)

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

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Any:
        return self.call_soon(callback, *args, context=context)

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
        heapq.heappush(self._timers, (when, self.next_number(), handle))
        return handle

    def create_future(self) -> Any:
        return Future(loop=self)

    def next_number(self) -> int:
        """Return a number that is new in this run."""
        self._numbers += 1
        return self._numbers

    def create_task(
        self,
        coro: Generator[Any, None, Result] | Coroutine[Any, Any, Result],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_: Any,
    ) -> asyncio.Task[Result]:
        name = name or f"task-{self.next_number()}"
        return Task(coro, loop=self, name=name, context=context)

    def run_in_executor(
        self,
        executor: Any,  # noqa: ARG002
        func: Callable[[*Ts], Result],
        *args: *Ts,
    ) -> "asyncio.Future[Result]":
        """Run it in the loop's own thread, a little later."""
        future: asyncio.Future[Result] = self.create_future()

        def run() -> None:
            if not future.cancelled():
                try:
                    future.set_result(func(*args))
                except Exception as error:  # noqa: BLE001
                    future.set_exception(error)

        self.call_later(self._executor_random.uniform(0.0001, 0.002), run)
        return future

    # Running.

    def run_until_complete(self, future: Any) -> Any:
        """Run until the future is done.

        Raises:
            Stuck: Nothing can happen any more.
            Endless: It took too many steps.
        """
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
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise Stuck
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                ready.append(handle)
        if len(ready) > 1 and self._shuffle and self._random.random() < self._shuffle:
            self._mix()
        for _ in range(len(ready)):
            self._run_one(ready.popleft())
        if self.steps > self._max_steps:
            raise Endless

    def _run_one(self, handle: Handle) -> None:
        if handle.cancelled():
            return
        node = handle.context.get(_node)
        if node is not None and node.state != "up":
            if node.state == "frozen":
                node.park(handle)
            else:
                self._graveyard.append(handle)
            return
        self.steps += 1
        task = handle.task
        if task is not None:
            self._record(f"{'' if node is None else node.name} {task.get_name()}")
        try:
            handle.run()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001
            self.call_exception_handler({"message": "a callback failed", "exception": error})

    def _mix(self) -> None:
        """Change the order of tasks that are ready, but not that of what one task has to do."""
        lanes: dict[Task[Any] | None, deque[Handle]] = {}
        for handle in self._ready:
            lanes.setdefault(handle.task, deque()).append(handle)
        self._ready.clear()
        left = list(lanes.values())
        while left:
            index = self._random.randrange(len(left))
            self._ready.append(left[index].popleft())
            if not left[index]:
                del left[index]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the error, unless its node is dead."""
        node = current_node()
        if node is None or node.state != "dead":
            self.errors.append(context)

    # The rest of what asyncio asks of a loop.

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def get_debug(self) -> bool:
        return False

    def close(self) -> None:
        """Forget what is left, without running it."""
        self._closed = True
        self._graveyard.clear()
        self._ready.clear()
        self._timers.clear()

    async def shutdown_asyncgens(self) -> None: ...

    async def shutdown_default_executor(self, timeout: float | None = None) -> None: ...  # noqa: ASYNC109
