"""The way from a server to the database, and what every statement takes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from jobledger_server.domain.job import Instant
from jobledger_server.store import StoreUnavailable
from jobledger_world.loop import Node
from jobledger_world.memory.locks import FEED, Locks, Session
from jobledger_world.memory.tables import Tables

Result = TypeVar("Result")


class Link(Protocol):
    """The way from a server to the database."""

    node: Node | None
    """The server."""

    async def request(self) -> float:
        """Have a statement reach the database; return how long its answer takes.

        Raises StoreUnavailable.
        """

    async def answer(self, seconds: float) -> None:
        """Have its answer reach the server. Raises StoreUnavailable."""

    async def commit(self, apply: Callable[[], Result]) -> Result:
        """Apply what a transaction writes. Raises StoreUnavailable, before that or after it."""


class Database:
    """The database, as a server reaches it. Several share its tables and locks.

    Args:
        tables: What is committed.
        locks: What is locked.
        clock: Its time.
        link: The way to it.
    """

    def __init__(
        self, tables: Tables, locks: Locks, clock: Callable[[], Instant], link: Link
    ) -> None:
        self.tables, self.locks, self.clock, self.link = tables, locks, clock, link

    async def read(self, statement: Callable[[], Result]) -> Result:
        """Run a statement, or several that read the same snapshot."""
        rest = await self.link.request()
        result = statement()
        await self.link.answer(rest)
        return result

    async def write(self, change: Callable[[], Result], *, lock: bool = True) -> Result:
        """Run a short transaction, which locks the feed if it changes that or counters.

        Args:
            change: Changes the tables. An error that it raises leaves them as they are.
            lock: Whether it locks the feed.
        """
        async with self.session() as session:
            async with self.statement(session):
                if lock:
                    await self.locks.acquire(FEED, session)
            return await self.commit(session, change)

    async def commit(self, session: Session, change: Callable[[], Result]) -> Result:
        """Commit a transaction: change the tables, and release its locks."""

        def committed() -> Result:
            self.check(session)
            result = change()
            self.locks.end(session)
            return result

        return await self.link.commit(committed)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Begin a transaction; what it has not committed by the end of the block is not done."""
        session = self.locks.begin(self.link.node)
        try:
            yield session
        finally:
            self.locks.end(session)

    @asynccontextmanager
    async def statement(self, session: Session) -> AsyncIterator[None]:
        """Run a statement of a transaction. If it fails, the transaction is over."""
        try:
            rest = await self.link.request()
            self.check(session)
            yield
            self.check(session)
            session.ran()
            await self.link.answer(rest)
        except BaseException:
            self.locks.end(session)
            raise

    def check(self, session: Session) -> None:
        """Raise StoreUnavailable if the database has terminated a transaction."""
        if session.abandoned:
            self.locks.end(session)
        if session.over:
            raise StoreUnavailable("the transaction was terminated", stale=True)
