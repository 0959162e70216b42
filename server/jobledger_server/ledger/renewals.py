"""Renewals: renews the leases of many jobs, whatever the jobs contain.

A worker renews all of its leases again and again, mostly of jobs that did not change. So
renewals read and write the leases alone, in transactions of their own: commands need whole
jobs. A renewal is no change, so nothing is published: it would cost each watcher a message,
and a worker that is alive but stuck could not be distinguished from one that works.
"""

from collections.abc import Callable, Sequence
from functools import partial

from jobledger_server.domain.commands import Renew
from jobledger_server.domain.errors import DomainError
from jobledger_server.domain.job import Instant, JobId, Lease
from jobledger_server.domain.leases import renew
from jobledger_server.ledger.batcher import Batcher
from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.store import Store, StoreError


class Renewals:
    """Renews leases. The end of the `async with` block of its batcher drains it.

    Args:
        store: The database.
        failed: Called with each error of the store, and the number of renewals that it fails.
        max_batch: Renewals in a transaction.
        max_batch_bytes: Bytes of their jobs: SQLite reads the whole row that it updates.
        max_waiting: Renewals that may wait.
        share: The fraction of it that one caller may use, up to 1.
        read_counter: See `Batcher`.
    """

    def __init__(
        self,
        store: Store,
        failed: Callable[[StoreError, int], None],
        *,
        max_batch: int,
        max_batch_bytes: int,
        max_waiting: int,
        share: float,
        read_counter: Callable[[], Callable[[Renew], int]],
    ) -> None:
        self._store = store
        self._failed = failed
        self.batcher: Batcher[Renew, Lease] = Batcher(
            "renewals",
            self._renew,
            max_batch=max_batch,
            max_batch_bytes=max_batch_bytes,
            max_waiting=max_waiting,
            share=share,
            read_counter=read_counter,
        )

    async def _renew(self, commands: Sequence[Renew]) -> Sequence[Lease | Exception]:
        try:
            return await retry_if_stale(partial(self._commit, commands))
        except StoreError as error:
            self._failed(error, len(commands))
            raise

    async def _commit(self, commands: Sequence[Renew]) -> Sequence[Lease | Exception]:
        async with self._store.transaction() as transaction:
            loaded = await transaction.load_leases({command.job_id for command in commands})
            now = await transaction.now()
            outcomes = [_decide(loaded, command, now) for command in commands]
            renewed = {each.id: each for each in outcomes if isinstance(each, Lease)}
            if renewed:
                await transaction.renew(list(renewed.values()))
        return outcomes


def _decide(loaded: dict[JobId, Lease], command: Renew, now: Instant) -> Lease | DomainError:
    try:
        return renew(loaded.get(command.job_id), command, now)
    except DomainError as refusal:
        return refusal
