"""The free slots of a stream, and the claims that fill them."""

import asyncio
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from jobledger_server.admission.caller import Caller
from jobledger_server.domain.commands import Claim
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.limits import MAX_CLAIMED_JOBS
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.long_poll import LongPoll
from jobledger_server.rpc.workers.work_leases import Leases
from jobledger_server.store import StoreError
from jobledger_server.tuning import Tuning
from jobledger_server.watch.held_jobs import HeldJobs
from jobledger_server.watch.hub import WatchHub


class Slots:
    """Claims jobs for one stream while it has free slots.

    Args:
        long_poll: Claims.
        hub: Knows what changed since a claim.
        held: The jobs that the stream holds.
        leases: Their leases.
        caller: Whose stream it is.
        ready: Called when there are jobs to send.
        failed: Called with an unexpected error; no more is claimed then.
        tuning: When it claims, and again after a claim that failed.
    """

    def __init__(
        self,
        long_poll: LongPoll,
        hub: WatchHub,
        held: HeldJobs,
        leases: Leases,
        caller: Caller,
        *,
        ready: Callable[[], None],
        failed: Callable[[Exception], None],
        tuning: Tuning = Tuning(),
    ) -> None:
        self._long_poll = long_poll
        self._hub = hub
        self._held = held
        self._leases = leases
        self._caller = caller
        self._ready = ready
        self._failed = failed
        self._quiet_part = tuning.quiet_part
        self._retry_seconds = tuning.claim_retry_seconds
        self._loop = asyncio.get_running_loop()
        self._slots = 0
        self._message_time = 0.0  # when the last message came
        self._unsent: Sequence[Decision] = ()  # claimed, and not written yet
        self._sending = False  # whether the message that is being written has them
        self._queried = 0  # the hub's sequence number when jobs were last queried for
        self._may_claim = asyncio.Event()
        self._claiming: asyncio.Task[None] | None = None

    def set(self, claim: Claim, slots: int | None) -> None:
        """Take note of a message, of what to claim, and of the number of slots if it has one."""
        self._message_time = self._loop.time()
        if slots is not None:
            if slots < self._slots and self._claiming is not None:
                self._claiming.cancel()  # it waits for more jobs than the worker takes now
                self._claiming = None
            self._slots = slots
        if self._claiming is None and self._slots:
            self._claiming = asyncio.create_task(self._claim(claim))
        self._may_claim.set()

    def stop(self) -> None:
        """Begin no other claim."""
        self._slots = 0

    def changed(self) -> None:
        """Take note that a slot may be free."""
        self._may_claim.set()

    def take(self) -> Sequence[Decision]:
        """Return the starts of the jobs to send now. `sent` or `close` follows."""
        self._sending = bool(self._unsent)
        return self._unsent

    def sent(self) -> None:
        """Take note that the last message was written."""
        if self._sending:
            self._sending = False
            self._unsent = ()
            self._may_claim.set()

    def close(self) -> None:
        """Stop claiming, and release the jobs that could not be sent."""
        if self._claiming is not None:
            self._claiming.cancel()
        if self._unsent:
            self._long_poll.release([start.job for start in self._unsent])

    async def _claim(self, claim: Claim) -> None:
        """Claim jobs whenever some may be pushed, until cancelled."""
        while True:
            await self._may_claim.wait()
            self._may_claim.clear()
            try:
                while (wait := self._max_wait()) > 0:
                    await self._claim_jobs(claim, wait)
            except (LimitExceeded, StoreError):
                await asyncio.sleep(self._retry_seconds)
                self._may_claim.set()
            except Exception as error:  # noqa: BLE001
                self._failed(error)
                return

    def _max_wait(self) -> float:
        """Return how many seconds a claim may wait now; 0 or less if no job may be pushed."""
        if self._unsent or self._free() <= 0:
            return 0
        return self._message_time + self._leases.seconds * self._quiet_part - self._loop.time()

    def _free(self) -> int:
        return self._slots - len(self._held)

    async def _claim_jobs(self, claim: Claim, wait: float) -> None:
        claim = replace(claim, max_jobs=min(self._free(), MAX_CLAIMED_JOBS))
        started = await self._long_poll.claim(claim, wait, self._caller, self._note_query)
        if not started:
            return
        # Safe because nothing was awaited since the claim: `close` sees every claimed job.
        self._unsent = started
        for start in started:
            self._held.add(start.job.id, start.job.attempt)
        self._ready()
        # Changes since the claim, before its jobs were held here: a cancellation, for instance.
        missed = self._hub.changes_since(self._queried)
        if missed is None:
            await self._leases.renew()
            self._ready()
        else:
            for change in missed:
                self._held.offer(change)

    def _note_query(self) -> None:
        self._queried = self._hub.seq
