"""The real store with gates before commits and reads, to force an interleaving."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from jobledger_server.store import Store, Transaction


async def _pass() -> None:
    """Block no caller."""


class _Gated:
    """The real transaction. It does not commit with its last statement, before the gate."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    async def append(self, decisions: Any, **_: Any) -> Any:
        return await self._transaction.append(decisions)


class GatedStore:
    """Everything is the real store's; what is set here is awaited before or after it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before_commit: Callable[[], Awaitable[None]] = _pass
        self.before_read: Callable[[], Awaitable[None]] = _pass
        self.after_read: Callable[[], Awaitable[None]] = _pass
        self.before_head: Callable[[], Awaitable[None]] = _pass
        self.before_news: Callable[[], Awaitable[None]] = _pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with self._store.transaction() as transaction:
            yield _Gated(transaction)
            await self.before_commit()

    async def read_jobs(self, *args: Any, **options: Any) -> Any:
        await self.before_read()
        jobs = await self._store.read_jobs(*args, **options)
        await self.after_read()
        return jobs

    async def feed_head(self) -> Any:
        await self.before_head()
        return await self._store.feed_head()

    async def news(self, *args: Any) -> Any:
        await self.before_news()
        return await self._store.news(*args)


class Gate:
    """Blocks every caller until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self._opened.wait()

    def open(self) -> None:
        self._opened.set()
