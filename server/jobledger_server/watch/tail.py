"""The tail: reads from the feed what other servers committed.

It polls where the lookout has seen a change (maintenance/lookout.py), and while it finds some.
Notifications make a poll earlier; losing one costs latency and nothing else.
"""

import asyncio
import logging
import random

from jobledger_server.store import (
    FeedCompacted,
    FeedHead,
    Store,
    StoreFault,
    StoreUnavailable,
)
from jobledger_server.tuning import Tuning
from jobledger_server.watch.hub import WatchHub

FAILOVER = (
    "PostgreSQL has another timeline: a standby took over (a failover or a switchover), or the "
    "database was restored to an earlier point in time"
)

RESTORE = (
    "the feed's epoch changed or its sequence number went backwards: was the database restored?"
)

log = logging.getLogger("jobledger.tail")


class Tail:
    """Keeps a hub up to date with the feed of a store.

    Args:
        store: The database.
        hub: Is handed what other servers committed.
        poll_now: Is set where a poll should not wait.
        head: The feed's head that the hub starts from.
        tuning: How often it polls, and how much it reads at once.

    `holes` counts sequence numbers without a change: impossible, and so a bug.
    """

    def __init__(
        self,
        store: Store,
        hub: WatchHub,
        poll_now: asyncio.Event,
        head: FeedHead,
        *,
        tuning: Tuning = Tuning(),
    ) -> None:
        self._store = store
        self._hub = hub
        self._poll_now = poll_now
        self._tuning = tuning
        self._head = head  # of the present epoch; its sequence number may be old
        self._unavailable = False
        self.holes = 0
        self._loop = asyncio.get_running_loop()
        self._current_at = self._loop.time()

    @property
    def lag(self) -> float:
        """Seconds since the last time at which the hub was known to have every commit."""
        return self._loop.time() - self._current_at

    @property
    def epoch(self) -> str:
        """The feed's epoch: sequence numbers are comparable only within one."""
        return self._head.epoch

    def heard(self, head: FeedHead, asked_at: float) -> None:
        """Receive the feed's head from whoever has read it, at this time of the loop or later."""
        if (head.epoch, head.seq) == (self.epoch, self._hub.seq):
            self._current_at = max(self._current_at, asked_at)
            self._unavailable = False
        else:
            self._poll_now.set()

    async def run(self) -> None:
        """Poll until cancelled: when `poll_now` is set, and where nobody has read the head."""
        busy, idle = self._tuning.tail_busy_seconds, self._tuning.tail_idle_seconds
        pause = idle
        while True:
            since = self._loop.time()
            try:
                # Jitter, so that many servers do not poll at the same moment.
                async with asyncio.timeout(pause * random.uniform(0.75, 1.25)):  # noqa: S311
                    await self._poll_now.wait()
            except TimeoutError:
                if self._current_at > since:
                    continue  # somebody has read the head meanwhile
            self._poll_now.clear()
            pause = busy if await self._catch_up() else idle

    async def _catch_up(self) -> bool:
        """Read what is missing; return whether anything was."""
        try:
            behind = await self._read_missing()
        except (StoreUnavailable, StoreFault) as error:
            if not self._unavailable:
                log.warning("database_unavailable", extra={"cause": str(error)})
            self._unavailable = True
            return False
        except Exception:
            # A bug, but one that must not leave every watch waiting indefinitely.
            log.exception("feed_read_failed")
            return False
        self._unavailable = False
        return behind

    async def _read_missing(self) -> bool:
        begun = self._loop.time()
        known = self._hub.newest
        head = await self._store.feed_head()
        if head.epoch != self.epoch or head.seq < known:
            await self._start_over(head)
            return True
        behind = head.seq > self._hub.seq
        while head.seq > self._hub.seq:
            try:
                await self._read_page(head.seq)
            except FeedCompacted:
                log.warning("feed_compacted", extra={"known": self._hub.seq, "head": head.seq})
                self._hub.restart(head.seq)
        self._current_at = begun
        return behind

    async def _read_page(self, head: int) -> None:
        """Read up to the head, or to the first commit that the hub has already."""
        known, gap_end = self._hub.seq, self._hub.gap_end
        until = head if gap_end is None else min(head, gap_end)
        page = await self._store.changes_after(known, limit=self._tuning.tail_page, until=until)
        last = page.changes[-1].seq if page.changes else known
        if last < page.through == page.head.seq:
            # The change at the head is always there: no later change can have replaced it.
            self.holes += 1
            log.error(
                "feed_hole_found",
                extra={"after": last, "head": page.head.seq, "holes": self.holes},
            )
            self._hub.restart(page.head.seq)
        else:
            self._hub.deliver(page)

    async def _start_over(self, head: FeedHead) -> None:
        """End every watch: its sequence number has another meaning now, or none.

        Clients start again from what the database holds now.
        """
        cause = FAILOVER if head.has_other_timeline(self._head) else RESTORE
        facts = {"cause": cause, "seq": head.seq, "known": self._hub.seq}
        log.warning("feed_epoch_changed", extra=facts)
        if head.epoch == self.epoch:
            head = await self._store.renew_epoch(head.epoch)
        self._head = head
        self._hub.restart(head.seq)
