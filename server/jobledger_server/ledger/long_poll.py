"""Long-poll claims: query, wait for a wake-up, query again.

A job that was claimed for a caller that is gone is released, as soon as the database answers.
Otherwise it would wait until its lease expires, and lose an attempt that no worker began.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from jobledger_server.admission.caller import SERVICE, Caller
from jobledger_server.domain.commands import Claim, Release
from jobledger_server.domain.job import Job
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.allocation import Allocation
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger, Outcome, decisions_of
from jobledger_server.ledger.pollers import Pollers
from jobledger_server.store import Claimable, StoreUnavailable
from jobledger_server.tuning import Tuning

log = logging.getLogger("jobledger.claims")


class LongPoll:
    """Claims that wait for a job to become claimable.

    The end of its `async with` block waits until the jobs of callers that are gone are
    released, or the database is found to be unavailable.
    """

    def __init__(
        self,
        ledger: Ledger,
        claim_waiters: ClaimWaiters,
        *,
        release_retry_seconds: float = Tuning().release_retry_seconds,
    ) -> None:
        self._ledger = ledger
        self._waiters = claim_waiters
        self._release_retry_seconds = release_retry_seconds
        self.pollers = Pollers()
        """Which types workers ask for."""
        self._releasing: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    @property
    def releasing(self) -> int:
        """How many callers are gone whose jobs are being released."""
        return len(self._releasing)

    async def claim(
        self,
        command: Claim,
        wait: float,
        caller: Caller,
        querying: Callable[[], None] = lambda: None,
    ) -> Sequence[Decision]:
        """Return the starts of jobs as soon as there are any, with their payloads.

        Returns none after `wait` seconds, or when draining.

        `querying` is called before each query for jobs. Raises LimitExceeded, ShuttingDown and
        StoreUnavailable.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        with (
            self.pollers.asking(command.job_types),
            self._waiters.waiting(command.job_types) as waiter,
        ):
            last = False
            while True:
                oldest = waiter.reset()
                querying()
                started = await self._claim_or_release(command, oldest, caller)
                remaining = deadline - loop.time()
                if started or last or remaining <= 0 or self._waiters.draining:
                    return started
                # What remains after a wait in full can still be a trillionth of a second.
                last = not await waiter.wait(remaining)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        if self._releasing:
            await asyncio.wait(self._releasing)

    async def _claim_or_release(
        self, command: Claim, oldest: Claimable | None, caller: Caller
    ) -> Sequence[Decision]:
        left = asyncio.Event()
        claim = Allocation(command, wanted=lambda: not left.is_set(), oldest=oldest)
        claiming = self._ledger.submit([claim], caller)
        try:
            return decisions_of(await asyncio.shield(claiming))
        except asyncio.CancelledError:
            # The caller is gone. Its claim gets nothing, unless it is under way: then without a
            # release the claimed jobs would wait until their leases expire, and lose an attempt.
            left.set()
            self._start(self._release_claimed(claiming))
            raise

    def release(self, jobs: Sequence[Job]) -> None:
        """Release claimed jobs that could not be sent to their worker, soon after the call."""
        self._start(self._release(jobs))

    def _start(self, release: Coroutine[None, None, None]) -> None:
        releasing = asyncio.create_task(release)
        self._releasing.add(releasing)
        releasing.add_done_callback(self._releasing.discard)

    async def _release_claimed(self, claiming: asyncio.Future[Sequence[Outcome]]) -> None:
        try:
            started = decisions_of(await claiming)
        except Exception:  # noqa: BLE001
            return  # nothing was claimed
        await self._release([decision.job for decision in started])

    async def _release(self, jobs: Sequence[Job]) -> None:
        while jobs := await self._release_some(jobs):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._release_retry_seconds):
                    await self._closing.wait()

    async def _release_some(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Release jobs; return those to try again."""
        last = self._closing.is_set()
        unreleased = []
        # No limit of the caller applies.
        outcomes = await self._ledger.submit(
            [Release(job_id=job.id, attempt=job.attempt) for job in jobs], SERVICE
        )
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, StoreUnavailable) and not last:
                unreleased.append(job)
            elif isinstance(outcome, Exception):
                facts = {"job": job.id, "attempt": job.attempt, "cause": repr(outcome)}
                log.warning("release_failed", extra=facts)
        return unreleased
