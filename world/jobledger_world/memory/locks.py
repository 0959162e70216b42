"""Locks as PostgreSQL has them: until the end of a transaction, and with a limit to each wait."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator

from jobledger_server.domain.limits import COMMAND_SECONDS
from jobledger_server.store import StoreUnavailable
from jobledger_world.loop import Node

FEED = "feed"
"""The lock of whoever writes the feed or counters. The others are those of jobs, by their ids."""


class Session:
    """A transaction as the database sees it.

    Attributes:
        node: The server that began it.
        over: Whether it was committed, rolled back or terminated.
        idle_since: When its last statement ended; None before the first, and while it waits.
    """

    def __init__(self, node: Node | None) -> None:
        self.node = node
        self.over = False
        self.idle_since: float | None = None
        self.locks: dict[str, None] = {}

    def ran(self) -> None:
        """Note that a statement has ended."""
        self.idle_since = asyncio.get_running_loop().time()

    @property
    def abandoned(self) -> bool:
        """Whether it was idle for so long that PostgreSQL terminates it."""
        idle_since = self.idle_since
        return (
            idle_since is not None
            and asyncio.get_running_loop().time() >= idle_since + COMMAND_SECONDS
        )


class Locks:
    """Who holds what, and who waits for it.

    PostgreSQL terminates a transaction that was idle for too long, say of a process that is
    frozen. Here that happens when somebody wants what it holds, or when it goes on.

    Args:
        counts: Has how many waits were too long, as `busy`.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._sessions: dict[Session, None] = {}
        self._holders: dict[str, Session] = {}
        self._waiting: dict[str, deque[tuple[asyncio.Future[None], Session]]] = {}

    def begin(self, node: Node | None) -> Session:
        """Begin a transaction."""
        session = Session(node)
        self._sessions[session] = None
        return session

    def end(self, session: Session) -> None:
        """Release what a transaction holds. Idempotent."""
        session.over = True
        if self._sessions.pop(session, ...) is None:
            for name in session.locks:
                self._pass_on(name)

    def sessions_of(self, node: Node | None) -> list[Session]:
        """Return the transactions of a server that are open."""
        return [session for session in self._sessions if session.node is node]

    def take(self, name: str, session: Session) -> bool:
        """Lock it unless another transaction has; return whether it is locked now.

        Raises:
            StoreUnavailable: The transaction is over: it was terminated while it waited.
        """
        if session.over:
            raise StoreUnavailable("the transaction was terminated", stale=True)
        holder = self._holders.get(name)
        if holder is not None and holder is not session and holder.abandoned:
            self.end(holder)
            holder = self._holders.get(name)
        if holder is None:
            self._grant(name, session)
        return holder in (None, session)

    async def acquire(self, name: str, session: Session) -> None:
        """Lock it, and wait for that if need be.

        Raises:
            StoreUnavailable: That takes too long.
        """
        if self.take(name, session):
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(name, deque()).append((waiter, session))
        session.idle_since = None
        timer = loop.call_later(COMMAND_SECONDS, self._give_up, name, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    def _give_up(self, name: str, waiter: "asyncio.Future[None]") -> None:
        holder = self._holders.get(name)
        if holder is not None and holder.abandoned:
            self.end(holder)
        if not waiter.done():
            self._counts["busy"] += 1
            waiter.set_exception(StoreUnavailable("a lock was not released", kind="timeout"))

    def _grant(self, name: str, session: Session) -> None:
        self._holders[name] = session
        session.locks[name] = None
        session.ran()

    def _pass_on(self, name: str) -> None:
        del self._holders[name]
        waiting = self._waiting.get(name, deque())
        while waiting:
            waiter, session = waiting.popleft()
            if not waiter.done() and not session.over:
                waiter.set_result(None)
                self._grant(name, session)
                break
        if not waiting:
            self._waiting.pop(name, None)

    def held(self) -> Iterator[str]:
        """Yield what is locked, and which transactions are open."""
        for session in self._sessions:
            name = "nobody" if session.node is None else session.node.name
            yield f"a transaction of {name} with {', '.join(session.locks) or 'no lock'}"
