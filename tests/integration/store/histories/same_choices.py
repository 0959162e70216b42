"""What databases may choose, chosen alike: the ids of jobs, and the order of what has none.

A ledger decides a batch again if an operator has set a limit meanwhile, and if a job has one of
its request ids. If both is so, databases find it in different orders: ids of a decision that was
not committed must leave no trace in later ones.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jobledger_server.domain.job import Job, JobId
from jobledger_server.ledger.ids import IdSource
from jobledger_server.store import Outdated, Store, StoreConflict, Transaction


class CountedIds(IdSource):
    """Makes ids of the time, a server's number, and a count."""

    def __init__(self, server: int) -> None:
        super().__init__()
        self.count = 0
        self._server = server

    def new_id(self, now_micros: int) -> str:
        self.count += 1
        head = now_micros // 1000 << 16 | 7 << 12
        tail = 0b10 << 62 | self._server << 32 | self.count
        return str(uuid.UUID(int=head << 64 | tail))


class _SameTransaction:
    """The real transaction. Jobs whose times came together are in the order of their ids."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    async def find_due(self, *, limit: int) -> list[Job]:
        found = await self._transaction.find_due(limit=limit)
        return sorted(found, key=lambda job: job.id)

    async def find_overdue(self, *, limit: int) -> dict[JobId, Job]:
        return dict(sorted((await self._transaction.find_overdue(limit=limit)).items()))


class SameStore:
    """The real store. The ids of a transaction that is to be repeated are made again."""

    def __init__(self, store: Store, ids: CountedIds) -> None:
        self._store, self._ids = store, ids

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[_SameTransaction]:
        before = self._ids.count
        try:
            async with self._store.transaction() as transaction:
                yield _SameTransaction(transaction)
        except (Outdated, StoreConflict):
            self._ids.count = before
            raise
