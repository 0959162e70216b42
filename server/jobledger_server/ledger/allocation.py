"""Allocation: which claim gets which of the claimable jobs."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jobledger_server.domain.commands import Claim
from jobledger_server.domain.limits import MAX_ANSWER_BYTES
from jobledger_server.domain.state_machine import Decision
from jobledger_server.store import Claimable

JOB_BYTES = 1024
"""About the bytes that a job takes in an answer besides `Claimable.size`."""


@dataclass(eq=False)
class Allocation:
    """A claim, and the jobs that it gets.

    Attributes:
        command: The claim.
        wanted: Returns False once its caller has left.
        oldest: The oldest claimable job of its types, if it is known without a query.
        decisions: The starts of those that it got.
        tried: The last step that searched for its jobs; 0 if none did.
        passed: How many jobs of its types were passed over in these steps.
        lost_races: How many of them in a row did nothing, because of other servers.
    """

    command: Claim
    wanted: Callable[[], bool] = lambda: True
    oldest: Claimable | None = None
    decisions: list[Decision] = field(default_factory=list)
    tried: int = 0
    passed: int = 0
    lost_races: int = 0


def allocate(
    found: Sequence[Claimable], allocations: Sequence[Allocation], *, max_bytes: int
) -> Sequence[tuple[Claimable, Allocation]]:
    """Allocate each job, the oldest first, to one of the claims of its type.

    The claims take turns, so that a claim of many jobs leaves some for the others. A claim
    gets at most as many jobs as it requested and as its response holds; all claims together
    get at most `max_bytes`, or one larger job. A job whose type no claim has stays unallocated.
    """
    quotas = {each: _Quota(each.command.max_jobs) for each in allocations}
    turns: dict[str, deque[Allocation]] = {}  # by job type
    for each in allocations:
        for job_type in each.command.job_types:
            turns.setdefault(job_type, deque()).append(each)
    allocated: list[tuple[Claimable, Allocation]] = []
    size = 0
    for job in found:
        if allocated and size + JOB_BYTES + job.size > max_bytes:
            break
        turn = turns.get(job.job_type)
        while turn and not quotas[turn[0]].admits(job):
            turn.popleft()
        if turn:
            allocation = turn[0]
            turn.rotate(-1)
            quotas[allocation].use(job)
            allocated.append((job, allocation))
            size += JOB_BYTES + job.size
    return allocated


class _Quota:
    """The jobs and bytes that a claim may still get."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._bytes = MAX_ANSWER_BYTES
        self._unused = True

    def admits(self, job: Claimable) -> bool:
        """Whether the claim may get the job. After one that is too large it gets no other."""
        if not self._unused and JOB_BYTES + job.size > self._bytes:
            self._jobs = 0
        return self._jobs > 0

    def use(self, job: Claimable) -> None:
        self._jobs -= 1
        self._bytes -= JOB_BYTES + job.size
        self._unused = False
