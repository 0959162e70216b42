"""How many jobs are ready, blocked, scheduled, held and waiting, in the whole database.

Every server reads the same counters, so a sum over servers means nothing. They are read only where
metrics are served or sent.
"""

import asyncio
import logging
import random

from jobledger_server.domain.job import MICROS_PER_SECOND
from jobledger_server.store import Store, StoreError
from jobledger_server.telemetry.job_metrics import MAX_JOB_TYPES
from jobledger_server.tuning import Tuning

log = logging.getLogger("jobledger.metrics")


class QueueMetrics:
    """The counters of the first MAX_JOB_TYPES types, as they were read last."""

    def __init__(self, tuning: Tuning) -> None:
        self._seconds = tuning.counters_seconds
        self.jobs: dict[tuple[str, ...], float] = {}
        """By job type and state."""
        self.oldest_waits: dict[str, float] = {}
        """Seconds, by job type. Types have none that are paused or without a job that waits."""

    async def run(self, store: Store) -> None:
        """Read until cancelled."""
        while True:
            try:
                await self.read(store)
            except StoreError as error:
                # What is not known is not shown.
                self.jobs, self.oldest_waits = {}, {}
                log.warning("counters_not_read", extra={"cause": repr(error)})
            except Exception:
                log.exception("counters_not_read")
            # Jitter, so that many servers do not read at the same moment.
            await asyncio.sleep(self._seconds * random.uniform(0.75, 1.25))  # noqa: S311

    async def read(self, store: Store) -> None:
        """Read the counters."""
        page = await store.queue_reports.stats(limit=MAX_JOB_TYPES)
        self.jobs = {
            (stats.job_type, state): count
            for stats in page.types
            for state, count in (
                ("ready", stats.total.ready),
                ("blocked", stats.total.blocked),
                ("scheduled", stats.total.scheduled),
                ("held", stats.total.held),
                ("waiting", stats.total.waiting),
            )
        }
        self.oldest_waits = {
            stats.job_type: max(0, page.time - stats.oldest) / MICROS_PER_SECOND
            for stats in page.types
            if stats.oldest is not None and stats.pause is None
        }
