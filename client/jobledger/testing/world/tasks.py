"""Callbacks, futures and tasks of a simulated event loop."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from jobledger.testing.world.nodes import Node

Result = TypeVar("Result")


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
        __tracebackhide__ = True  # of pytest, as is that below
        try:
            return self._work.send(value)
        except BaseException as error:
            self._check(error)
            raise

    def throw(self, *error: Any) -> Any:
        __tracebackhide__ = True
        try:
            return self._work.throw(*error)
        except BaseException as raised:
            self._check(raised)
            raise

    def close(self) -> None:
        self._work.close()

    def _check(self, error: BaseException) -> None:
        if not isinstance(error, OF_A_TASK):
            self._interrupted(error)


class _Numbered:
    """Hashed by a number instead of its address, so that sets have the same order in each run.

    It is given when the object is made, for Pythons differ in what they hash.
    """

    def __init__(self, *args: Any, loop: Any, **options: Any) -> None:
        self._number: int = loop.next_number()
        super().__init__(*args, loop=loop, **options)  # type: ignore[call-arg]

    def __hash__(self) -> int:
        return self._number


class Task(_Numbered, asyncio.Task[Result]):
    """See `_Numbered`."""

    node: Node | None


class Future(_Numbered, asyncio.Future[Result]):
    """See `_Numbered`."""
