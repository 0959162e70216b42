"""Callbacks, futures and tasks of a simulated event loop."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")


class Handle:
    """A callback that is to run: asyncio's handle, as far as asyncio itself uses it."""

    __slots__ = ("_when", "args", "callback", "context", "is_cancelled")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        when: float,
    ) -> None:
        self.callback = callback
        self.args = args
        self._when = when
        self.is_cancelled = False
        self.context = contextvars.copy_context() if context is None else context

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._when

    @property
    def task(self) -> "Task[Any] | None":
        """The task whose next step this is."""
        owner = getattr(self.callback, "__self__", None)
        return owner if isinstance(owner, Task) else None


OF_A_TASK = Exception, asyncio.CancelledError, GeneratorExit
"""What a task may end with, which whoever awaits it learns of."""


class Work(Coroutine[Any, Any, Result]):
    """A coroutine of a task; says at once what has interrupted it from outside.

    A task keeps what its coroutine raises for whoever awaits it, even what a signal handler has
    raised to end the whole run, as pytest-timeout does.

    Args:
        work: The coroutine.
        interrupted: Called with what it has raised, unless that is of the kind OF_A_TASK.
    """

    __slots__ = ("_interrupted", "_work")

    def __init__(
        self,
        work: Generator[Any, None, Result] | Coroutine[Any, Any, Result],
        interrupted: Callable[[BaseException], None],
    ) -> None:
        self._work, self._interrupted = work, interrupted

    def __await__(self) -> Generator[Any, Any, Result]:
        raise NotImplementedError("its task alone runs it")

    def send(self, value: Any) -> Any:
        __tracebackhide__ = True  # of pytest, as are those below
        return self._step(self._work.send, value)

    def throw(self, *error: Any) -> Any:
        __tracebackhide__ = True
        return self._step(self._work.throw, *error)

    def close(self) -> None:
        self._work.close()

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        __tracebackhide__ = True
        try:
            return step(*args)
        except BaseException as error:
            if not isinstance(error, OF_A_TASK):
                self._interrupted(error)
            raise


class Future(asyncio.Future[Result]):
    """Hashed by a number instead of its address, so that sets have the same order in each run.

    It is given when the object is made, for Pythons differ in what they hash.
    """

    __slots__ = ("number",)

    number: int

    def __hash__(self) -> int:
        return self.number


class Task(asyncio.Task[Result]):
    """Hashed as a `Future` is: before it is made, for asyncio keeps a set of all tasks."""

    __slots__ = ("node", "number")

    node: object
    """The node that it belongs to, or None. A task asks nothing of it."""

    def __init__(self, number: int, *args: Any, **options: Any) -> None:
        self.number = number
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self.number
