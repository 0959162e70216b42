"""What simulated servers tell each other: late, and now and then not at all."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from jobledger_server.domain.job import JobId
from jobledger_server.embedded import Notices
from jobledger_world.chance import Chance
from jobledger_world.loop import Node, WorldLoop, current_node


class Exchange:
    """Carries notices between the servers of a world.

    Attributes:
        latency: Seconds that a notice takes, at least and at most.
        lost: The part of them that does not arrive.
    """

    def __init__(self, loop: WorldLoop, chance: Chance) -> None:
        self.latency = 0.0005, 0.01
        self.lost = 0.02
        self._loop = loop
        self._random = chance.of("notices")
        self._members: dict[_Member, None] = {}

    def exchange(
        self,
        committed: Callable[[], None],
        ready: Callable[[], None],
        appended: Callable[[Collection[JobId] | None], None],
    ) -> Notices:
        """Make what the server that runs now exchanges notices with: see `OpenedStore`."""
        node = current_node()
        assert node is not None  # noqa: S101  # servers run on nodes
        return _Member(self, node, committed, ready, appended)

    def send(self, sender: "_Member", notice: Callable[["_Member"], Callable[[], None]]) -> None:
        """Send a notice to all others."""
        for member in self._members:
            if member is not sender and self._random.random() >= self.lost:
                pause = self._random.uniform(*self.latency)
                self._loop.call_later(pause, notice(member), context=member.node.context)

    def join(self, member: "_Member") -> None:
        """Send notices to this one, too."""
        # Those of dead nodes have not left.
        self._members = {each: None for each in self._members if each.node.state != "dead"}
        self._members[member] = None

    def leave(self, member: "_Member") -> None:
        """Send none to it any more."""
        self._members.pop(member, None)


@dataclass(frozen=True, eq=False)
class _Member:
    """One server's end of the exchange."""

    hub: Exchange
    node: Node
    on_committed: Callable[[], None]
    on_ready: Callable[[], None]
    on_appended: Callable[[Collection[JobId] | None], None]

    def committed(self) -> None:
        self.hub.send(self, lambda other: other.on_committed)

    def ready(self) -> None:
        self.hub.send(self, lambda other: other.on_ready)

    def appended(self, ids: Collection[JobId]) -> None:
        self.hub.send(self, lambda other: partial(other.on_appended, ids))

    async def run(self) -> None:
        self.hub.join(self)
        try:
            await asyncio.Event().wait()
        finally:
            self.hub.leave(self)
