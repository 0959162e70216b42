"""The leases of the jobs that a stream holds: renewed by its messages, lost to others."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from jobledger_server.admission.caller import Caller
from jobledger_server.admission.rates import RateLimit
from jobledger_server.domain.commands import ChangeStatus, Release, Report, WorkerCommand
from jobledger_server.domain.errors import DomainError, JobNotFound, LimitExceeded, PhaseUnknown
from jobledger_server.domain.job import MICROS_PER_SECOND, JobId, Micros
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import StoreError
from jobledger_server.tuning import Tuning
from jobledger_server.watch.held_jobs import HeldJobs, Signal


class Leases:
    """The leases of one stream.

    Args:
        ledger: Renews them.
        held: The jobs that the stream holds.
        caller: Whose stream it is.
        rate: Counts each renewal as an update of the caller: it costs as much.
        tuning: How often a message renews them.
    """

    def __init__(
        self,
        ledger: Ledger,
        held: HeldJobs,
        caller: Caller,
        rate: RateLimit,
        tuning: Tuning = Tuning(),
    ) -> None:
        self._ledger = ledger
        self._held = held
        self._caller = caller
        self._rate = rate
        self._renewals_per_lease = tuning.renewals_per_lease
        self._loop = asyncio.get_running_loop()
        self._renewed = float("-inf")
        self.seconds = 0.0
        """The shortest of the leases."""
        # Jobs with an update that finishes or releases them and has no outcome yet. Until then it
        # is not known whether a change of theirs is a lost lease or the stream's own doing.
        self._finishing: Counter[JobId] = Counter()

    async def hold(self, lease: Micros, holding: Iterable[tuple[JobId, int]]) -> None:
        """Hold the jobs that a worker names, as far as they are its own. Raises as `renew` does.

        Afterwards it is known which are: a job of another worker, or of a type that the caller
        may not work on, is lost at once, and its worker learns nothing else of it.
        """
        self.seconds = lease / MICROS_PER_SECOND
        # Hold, then read the jobs: what is committed in between is offered by the hub.
        for job_id, attempt in holding:
            self._held.add(job_id, attempt)
        # All of them, whatever the first message goes on to say of them: that is not submitted yet.
        await self._renew(self._held.attempts())

    async def renew_if_due(self) -> None:
        """Renew the leases if that was not done for a while."""
        if self._loop.time() - self._renewed < self.seconds / self._renewals_per_lease:
            return
        try:
            await self.renew()
        except (LimitExceeded, StoreError):
            self._renewed = float("-inf")  # by the next message

    async def renew(self) -> None:
        """Renew the lease of each held job, and note the jobs whose leases are lost.

        Raises LimitExceeded, ShuttingDown and StoreError if not all leases could be renewed.
        """
        held = self._held.attempts()
        await self._renew([each for each in held if each[0] not in self._finishing])

    async def _renew(self, held: Sequence[tuple[JobId, int]]) -> None:
        self._renewed = self._loop.time()
        if not held:
            return
        self._rate.add(self._caller, len(held))
        job_types = self._caller.permissions.job_types
        renewals = [
            Report(job_id=job, attempt=attempt, job_types=job_types) for job, attempt in held
        ]
        outcomes = await self._ledger.submit(renewals, self._caller)
        for (job_id, attempt), outcome in zip(held, outcomes, strict=True):
            passing = isinstance(outcome, LimitExceeded | PhaseUnknown)
            if isinstance(outcome, DomainError) and not passing:
                self._held.lose(job_id, attempt)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                (decision,) = outcome
                job = decision.job
                self._held.observe(job)  # it is lost if it is terminal
                if job.lease_duration is not None:
                    self.seconds = min(self.seconds, job.lease_duration / MICROS_PER_SECOND)

    def submitted(self, command: WorkerCommand) -> None:
        """Take note that an update is on its way."""
        if ends(command):
            self._finishing[command.job_id] += 1

    def decided(self, command: WorkerCommand, outcome: Decision | Exception) -> None:
        """Take note of what became of an update."""
        if ends(command):
            self._finishing[command.job_id] -= 1
            if not self._finishing[command.job_id]:
                del self._finishing[command.job_id]
        if isinstance(outcome, Decision):
            if ends(command) and command.attempt is not None:
                self._held.remove(command.job_id, command.attempt)
            # Else the signal of a change at another server could come after this result.
            self._held.observe(outcome.job)
        elif isinstance(outcome, JobNotFound) and command.attempt is not None:
            # The result says it.
            self._held.remove(command.job_id, command.attempt)

    def next_signal(self) -> Signal | None:
        """Take a signal to send, if there is one."""
        return self._held.next_signal(unless=self._finishing)


def ends(command: WorkerCommand) -> bool:
    """Whether the command ends what its worker holds."""
    return isinstance(command, ChangeStatus | Release)
