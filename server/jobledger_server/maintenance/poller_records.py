"""Records which job types the workers of this server ask for, for the other servers.

Only where there are other servers: what a server knows itself it does not look up. A server whose
workers ask for nothing writes nothing.
"""

import asyncio
import logging
import random
import uuid

from jobledger_server.domain.job import MICROS_PER_SECOND, Micros
from jobledger_server.ledger.pollers import POLLED_SECONDS, Pollers
from jobledger_server.store import Store, StoreError
from jobledger_server.tuning import Tuning

LASTS = Micros(round(POLLED_SECONDS * MICROS_PER_SECOND))

log = logging.getLogger("jobledger.pollers")


class PollerRecords:
    """Writes the types of a server's pollers to the database."""

    def __init__(self, store: Store, pollers: Pollers, tuning: Tuning = Tuning()) -> None:
        self._store = store
        self._pollers = pollers
        self._seconds = tuning.poller_seconds
        self._server = str(uuid.uuid4())

    async def run(self) -> None:
        """Record until cancelled."""
        while True:
            # Jitter, so that many servers do not write at the same moment.
            await asyncio.sleep(self._seconds * random.uniform(0.75, 1.25))  # noqa: S311
            try:
                await self.record()
            except StoreError as error:
                log.warning("pollers_not_recorded", extra={"cause": repr(error)})
            except Exception:
                log.exception("pollers_not_recorded")

    async def record(self) -> None:
        """Record the types that workers ask for now, if there are any."""
        if job_types := self._pollers.types():
            await self._store.record_pollers(self._server, job_types, lasts=LASTS)
