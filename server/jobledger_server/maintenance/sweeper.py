"""The sweeper: deletes the counters of what is idle, and finds blocked jobs that were forgotten.

Every server runs it, without a leader. It looks at the rows page by page, without locks, and locks
the feed only to delete what it found. Rows that became busy meanwhile stay.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence

from jobledger_server.domain.job import MICROS_PER_SECOND, Micros
from jobledger_server.domain.queues import ENDED_STEP
from jobledger_server.store import CountedLevel, Store, StoreError
from jobledger_server.tuning import Tuning

ENDED_AGE = Micros(3600 * MICROS_PER_SECOND + ENDED_STEP)
"""How long the counts of jobs that ended are kept."""

Pass = Callable[[], AsyncIterator[int]]
"""Makes one pass over the rows of a table; yields after each step how many it deleted."""

log = logging.getLogger("jobledger.sweeper")


class Sweeper:
    """Deletes the counters of idle queues, levels and keys, and what has expired."""

    def __init__(self, store: Store, tuning: Tuning = Tuning()) -> None:
        self._sweeps = store.sweeps
        self._tuning = tuning
        self._rows = tuning.sweep_rows
        self._after_level: tuple[str, int] = ("", 0)

    @property
    def passes(self) -> Sequence[Pass]:
        """The pass over each table. That over the queues is over the levels, too."""
        return self._queues, self._keys, self._ended, self._pollers

    async def run(self) -> None:
        """Sweep until cancelled, each table at its own pace: some have millions of rows."""
        async with asyncio.TaskGroup() as group:
            for each in self.passes:
                group.create_task(self._repeat(each))

    async def _repeat(self, sweep: Pass) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Jitter, so that many servers do not sweep at the same moment.
            await asyncio.sleep(self._tuning.sweep_seconds * random.uniform(0.75, 1.25))  # noqa: S311
            try:
                begin = loop.time()
                async for deleted in sweep():
                    # Where much is idle, as long as the step took: much becomes idle, too.
                    many = deleted >= self._rows // 2
                    await asyncio.sleep(
                        loop.time() - begin if many else self._tuning.sweep_step_seconds
                    )
                    begin = loop.time()
            except StoreError as error:
                log.warning("sweep_failed", extra={"cause": repr(error)})
            except Exception:
                log.exception("sweep_failed")

    async def _queues(self) -> AsyncIterator[int]:
        levels = await self._idle_levels()
        swept = await self._sweeps.queues(after=None, limit=self._rows)
        yield swept.deleted
        while swept.last is not None:
            swept = await self._sweeps.queues(after=swept.last, limit=self._rows)
            yield swept.deleted
        # Their queues are gone by now, unless a job came: then the level was written to.
        await self._sweeps.delete_levels(levels)

    async def _keys(self) -> AsyncIterator[int]:
        swept = await self._sweeps.keys(after="", limit=self._rows)
        yield swept.deleted
        while swept.last is not None:
            swept = await self._sweeps.keys(after=swept.last, limit=self._rows)
            yield swept.deleted

    async def _ended(self) -> AsyncIterator[int]:
        deleted = self._rows
        while deleted == self._rows:
            deleted = await self._sweeps.ended(ENDED_AGE, limit=self._rows)
            yield deleted

    async def _pollers(self) -> AsyncIterator[int]:
        await self._sweeps.pollers()
        yield 0

    async def _idle_levels(self) -> Sequence[CountedLevel]:
        found = await self._sweeps.levels(after=self._after_level, limit=self._rows)
        last = found[-1] if len(found) == self._rows else None
        self._after_level = ("", 0) if last is None else (last.job_type, last.priority)
        return [level for level in found if level.idle]
