"""The ledger as WorkerService uses it: with the job types and the fencing of its caller."""

from collections.abc import Callable, Mapping, Sequence

from jobledger_server.domain.commands import Claim, JobCommand, Report, WorkerCommand
from jobledger_server.domain.job import Job, JobId
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.ledger import Answer
from jobledger_server.ledger.long_poll import LongPoll
from jobledger_server.rpc.access.audit import Commands, audit
from jobledger_server.rpc.access.permissions import AccessDenied, work_limits
from jobledger_server.rpc.validation import InvalidRequest


class WorkerLedger:
    """The ledger, with the caller's limits on every command.

    All of WorkerService goes through it, so no method can omit them.
    """

    def __init__(self, ledger: Commands, long_poll: LongPoll) -> None:
        self._ledger = ledger
        self._long_poll = long_poll

    async def apply(self, command: WorkerCommand) -> Decision:
        """See `Ledger`. Also raises InvalidRequest."""
        return await self._ledger.apply(work_limits().of(command))

    def put(self, commands: Sequence[tuple[WorkerCommand, Answer]]) -> None:
        """See `Ledger`. An answer may be InvalidRequest too."""
        limits = work_limits()
        limited: list[tuple[JobCommand, Answer]] = []
        for command, answer in commands:
            try:
                limited.append((limits.of(command), answer))
            except InvalidRequest as refusal:
                answer(refusal)
        self._ledger.put(limited)

    async def renew_all(self, attempts: Mapping[JobId, int]) -> Sequence[Decision]:
        """See `Ledger`. The jobs are given with their worker's attempts."""
        limits = work_limits()
        reports = [
            limits.of(Report(job_id=job_id, attempt=attempt))
            for job_id, attempt in attempts.items()
        ]
        return await self._ledger.apply_all(reports)

    def check_job_types(self, job_types: frozenset[str]) -> None:
        """Raise AccessDenied unless the caller may claim jobs of these types."""
        allowed = work_limits().job_types
        if allowed is not None and not job_types <= allowed:
            raise AccessDenied

    async def claim(
        self, command: Claim, wait: float, querying: Callable[[], None] = lambda: None
    ) -> list[Job]:
        """See `LongPoll`. Also raises AccessDenied."""
        self.check_job_types(command.job_types)
        jobs = await self._long_poll.claim(command, wait, querying)
        if jobs:
            audit("claim", [job.id for job in jobs])
        return jobs

    def release(self, jobs: Sequence[Job]) -> None:
        """See `LongPoll`."""
        self._long_poll.release(jobs)
