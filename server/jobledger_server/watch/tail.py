"""The tail: reads from the feed what this process did not commit itself.

A look is cheap, and one is taken every so often whatever happens: hints make it
sooner, and losing them costs latency and nothing else.
"""

import asyncio
import logging
import random

from jobledger_server.store import (
    PAGE_BYTES,
    DeletionsForgotten,
    FeedHead,
    Store,
    StoreFault,
    StoreUnavailable,
)
from jobledger_server.watch.hub import WatchHub

PAGE = 1000
"""Changes read at once."""

BUSY_SECONDS = 0.05
"""Between looks while others commit too."""

IDLE_SECONDS = 0.5
"""Between looks while nobody else does."""

log = logging.getLogger("jobledger.tail")


class Tail:
    """Keeps a hub up with the feed of a store, from a known head on.

    `holes` counts the places that were found empty: impossible, and so a bug.
    """

    def __init__(self, store: Store, hub: WatchHub, look: asyncio.Event, head: FeedHead) -> None:
        self._store = store
        self._hub = hub
        self._look = look
        self._epoch = head.epoch
        self._away = False
        self.holes = 0

    @property
    def epoch(self) -> str:
        """The name of the feed that the hub's places are in."""
        return self._epoch

    async def run(self) -> None:
        """Look until cancelled, whenever `look` is set and at least every IDLE_SECONDS."""
        pause = IDLE_SECONDS
        while True:
            try:
                # Jitter, so that many servers do not ask at the same moment.
                async with asyncio.timeout(pause * random.uniform(0.75, 1.25)):  # noqa: S311
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            pause = BUSY_SECONDS if await self._catch_up() else IDLE_SECONDS

    async def _catch_up(self) -> bool:
        """Read what is missing; return whether anything was."""
        try:
            behind = await self._read_gap()
        except (StoreUnavailable, StoreFault) as error:
            if not self._away:
                log.warning("the database is away; watchers wait", extra={"cause": str(error)})
            self._away = True
            return False
        except Exception:
            # A bug, but one that must not leave every watcher waiting for ever.
            log.exception("a look at the feed failed")
            return False
        self._away = False
        return behind

    async def _read_gap(self) -> bool:
        known = self._hub.seq
        # After an absence it may be another database that answers: one that took over.
        head = await (self._store.recognise() if self._away else self._store.feed_head())
        if head.epoch != self._epoch or head.seq < known:
            await self._begin_anew(head)
            return True
        behind = head.seq > self._hub.seq
        while head.seq > self._hub.seq:
            try:
                head = await self._read_page()
            except DeletionsForgotten:
                log.warning("this server was away for longer than deletions are remembered")
                self._hub.restart(head.seq)
        return behind

    async def _read_page(self) -> FeedHead:
        known = self._hub.seq
        page = await self._store.changes_after(known, limit=PAGE, max_bytes=PAGE_BYTES)
        last = page.changes[-1].seq if page.changes else known
        if last < page.through and last < page.head.seq:
            # The change at the head stands there: no later one can have moved it.
            self.holes += 1
            log.error(
                "a bug: the feed has a hole; every watch begins again",
                extra={"after": last, "head": page.head.seq, "holes": self.holes},
            )
            self._hub.restart(page.head.seq)
            return page.head
        self._hub.deliver(page.changes)
        return page.head

    async def _begin_anew(self, head: FeedHead) -> None:
        """End every watch: places mean something else now, so nobody can be told what it missed.

        Each begins again, from what the database holds today.
        """
        log.error("the feed is another one or went back: was the database restored?")
        if head.epoch == self._epoch:
            head = await self._store.renew_epoch(head.epoch)
        self._epoch = head.epoch
        self._hub.restart(head.seq)
