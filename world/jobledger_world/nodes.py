"""Simulated processes."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from jobledger_world.tasks import Handle

Result = TypeVar("Result")


class NodeLoop(asyncio.AbstractEventLoop):
    """What an event loop does for its nodes."""

    def resume(self, handles: list[Handle]) -> None:
        """Run these next."""
        raise NotImplementedError

    def bury(self, node: "Node", handles: list[Handle]) -> None:
        """Never run these, nor the tasks of a node that is dead."""
        raise NotImplementedError


class Node:
    """A simulated process. Its tasks, and the tasks that they start, belong to it.

    Attributes:
        name: Stands in the trace.
        state: A `frozen` node runs nothing until it is thawed; a `dead` one never again.
        watchers: Called when the state has changed.
    """

    def __init__(self, loop: NodeLoop, name: str) -> None:
        self.name = name
        self.state: Literal["up", "frozen", "dead"] = "up"
        self.watchers: list[Callable[[], None]] = []
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
            self._become("frozen")

    def thaw(self) -> None:
        """Go on after `freeze`."""
        if self.state == "frozen":
            self._become("up")
            self._loop.resume(self._parked)
            self._parked = []

    def kill(self) -> None:
        """Run nothing of this node any more, not even what it would do at its end."""
        self._become("dead")
        self._loop.bury(self, self._parked)
        self._parked = []

    def _become(self, state: Literal["up", "frozen", "dead"]) -> None:
        self.state = state
        for each in self.watchers:
            each()

    def park(self, handle: Handle) -> None:
        """Keep what a frozen node would run."""
        self._parked.append(handle)


_node: contextvars.ContextVar[Node | None] = contextvars.ContextVar("jobledger_node", default=None)


def current_node() -> Node | None:
    """Return the node that runs now; None outside of all nodes."""
    return _node.get()


def node_of(context: contextvars.Context) -> Node | None:
    """Return the node that what runs in this context belongs to."""
    return context.get(_node)
