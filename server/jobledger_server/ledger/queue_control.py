"""Changes what operators set, and has this server act on it at once.

Other servers act on it when they look next; see maintenance/lookout.py. No start and no creation
commits against it anywhere: see known_limits.py.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self, assert_never, overload

from jobledger_server.admission.caller import Caller
from jobledger_server.admission.endings import ShuttingDown
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.settings import (
    PauseKey,
    PauseType,
    ResumeKey,
    ResumeType,
    RevokeWatchTokens,
    SetLimit,
    Setting,
    SetTypeDefaults,
)
from jobledger_server.domain.waiting import Pause
from jobledger_server.ledger.batcher import Batcher
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.queue_store import Limit
from jobledger_server.store import Store, StoreError

Observe = Callable[[Caller, Setting, object], None]
"""Called with each setting and what became of it, also for a caller that is gone."""


class QueueControl:
    """Changes settings, one after the other. The end of its `async with` block drains it.

    Args:
        store: The database.
        ledger: Starts jobs.
        waiters: The claims that wait at this server.
        max_waiting: Settings that may wait.
        share: The fraction of it that one caller may use, up to 1.
        observe: Observes every outcome.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        waiters: ClaimWaiters,
        *,
        max_waiting: int,
        share: float = 1.0,
        observe: Observe | None = None,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._waiters = waiters
        self._observe = observe
        self.batcher: Batcher[Setting, object] = Batcher(
            "settings",
            self._serve,
            max_batch=1,
            max_waiting=max_waiting,
            share=share,
            observe=observe,
        )

    async def __aenter__(self) -> Self:
        await self.batcher.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.batcher.__aexit__(kind, error, trace)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that changes them. None before the `async with` block."""
        return self.batcher.task

    @overload
    async def submit(self, setting: PauseType, caller: Caller) -> Pause: ...

    @overload
    async def submit(self, setting: SetLimit | PauseKey, caller: Caller) -> Limit: ...

    @overload
    async def submit(self, setting: ResumeType | ResumeKey, caller: Caller) -> bool: ...

    @overload
    async def submit(
        self, setting: SetTypeDefaults | RevokeWatchTokens, caller: Caller
    ) -> None: ...

    async def submit(self, setting: Setting, caller: Caller) -> object:
        """Change a setting; return once it is durable and this server acts on it.

        Returns:
            The pause or the limit as it is now, whether there was a pause to end, or None.

        Raises:
            LimitExceeded: There are as many as may be; or too much waits, of this caller or of all.
            ShuttingDown: The server drains.
            StoreUnavailable: The database does not answer.
        """
        try:
            outcome = self.batcher.put([setting], caller)
        except (LimitExceeded, ShuttingDown) as refusal:
            if self._observe is not None:
                self._observe(caller, setting, refusal)
            raise
        (done,) = await outcome
        if isinstance(done, Exception):
            raise done
        return done

    async def _serve(self, settings: Sequence[Setting]) -> Sequence[object]:
        done: list[object] = []
        for setting in settings:
            done.append(await retry_if_stale(partial(self._write, setting)))
            # It is durable: the lookout makes up for what fails here.
            with suppress(StoreError):
                await self._act_on(setting)
        return done

    async def _write(self, setting: Setting) -> object:
        store = self._store.queue_settings
        match setting:
            case PauseType(job_type, reason, actor):
                return await store.pause_type(job_type, actor=actor, reason=reason)
            case ResumeType(job_type):
                return await store.resume_type(job_type)
            case SetLimit(name, max_running):
                return await store.set_limit(name, max_running)
            case PauseKey(name, reason, actor):
                return await store.pause_key(name, actor=actor, reason=reason)
            case ResumeKey(name):
                return await store.resume_key(name)
            case SetTypeDefaults(job_type, defaults):
                await store.set_type_defaults(job_type, defaults)
                return None
            case RevokeWatchTokens():
                await store.renew_watch_key()
                return None
            case _:
                assert_never(setting)

    async def _act_on(self, setting: Setting) -> None:
        await self._ledger.known_limits.refresh()
        match setting:
            case ResumeType(job_type):
                news = await self._store.news([job_type])
                self._waiters.offer(job_type, news.ready.get(job_type, 0))
            case SetLimit() | ResumeKey():
                self._ledger.recheck.set()
