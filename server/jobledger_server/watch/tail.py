"""The tail: reads from the feed what this process did not commit itself.

A look is cheap, and one is taken every so often whatever happens: hints make it
sooner, and losing them costs latency and nothing else.
"""

import asyncio
import logging
import random

from jobledger_server.store import Store, StoreUnavailable
from jobledger_server.watch.hub import WatchHub

PAGE = 1000
"""Changes read at once."""

BUSY_SECONDS = 0.05
"""Between looks while others commit too."""

IDLE_SECONDS = 0.5
"""Between looks while nobody else does."""

log = logging.getLogger("jobledger.tail")


class Tail:
    """Keeps a hub up with the feed of a store."""

    def __init__(self, store: Store, hub: WatchHub, look: asyncio.Event, epoch: str) -> None:
        self._store = store
        self._hub = hub
        self._look = look
        self._epoch = epoch
        self._away = False

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
        except StoreUnavailable as error:
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
        head = await self._store.feed_head()
        if head.epoch != self._epoch or head.seq < known:
            # Places in it mean something else now, so nobody can be told what was missed: let
            # every watcher begin again, from what the database holds today.
            log.error("the feed is another one or went back: was the database restored?")
            self._epoch = head.epoch
            self._hub.restart(head.seq)
            return True
        behind = head.seq > self._hub.seq
        while head.seq > self._hub.seq:
            changes = await self._store.changes_after(self._hub.seq, limit=PAGE)
            self._hub.deliver(changes)
            if not changes:
                break
        return behind
