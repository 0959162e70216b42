"""How much output is stored of a job, and how fast an owner and all owners may append.

Output that is dropped again leaves work to the database. So it is the rate that bounds what output
costs, more than what is stored.
"""

from collections.abc import Callable

from jobledger_server.admission.rates import Allowances
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.limits import (
    DEFAULT_JOB_OUTPUT_BYTES,
    DEFAULT_OUTPUT_RATE,
    DEFAULT_OWNER_OUTPUT_RATE,
)


class OutputRates:
    """The limits of output at this server.

    What is appended is counted once it is committed, so an owner may be ahead by one batch.

    Args:
        job_bytes: Bytes of output that are stored of one job.
        owner_rate: Bytes a second that the jobs of one owner may append.
        all_rate: Bytes a second that all jobs may append.
        clock: Returns seconds. By default it is the event loop's.
    """

    limit = "output_bytes_per_second"

    def __init__(
        self,
        job_bytes: int = DEFAULT_JOB_OUTPUT_BYTES,
        owner_rate: float = DEFAULT_OWNER_OUTPUT_RATE,
        all_rate: float = DEFAULT_OUTPUT_RATE,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.job_bytes = job_bytes
        self._owner_rate, self._all_rate = owner_rate, all_rate
        self._owners, self._all = Allowances(clock), Allowances(clock)
        self.refused = {"caller": 0, "server": 0}
        """How often output was refused, by the scope of the limit."""
        self.appended = 0
        """Bytes that were appended."""

    def check(self, user_id: str) -> None:
        """Raise LimitExceeded if the owner, or all together, have appended too much."""
        level = self._owners.of(user_id, self._owner_rate)
        if level < 0:
            self.refused["caller"] += 1
            raise LimitExceeded(
                self.limit,
                self._owner_rate,
                scope="caller",
                retry_after=-level / self._owner_rate,
            )
        level = self._all.of("", self._all_rate)
        if level < 0:
            self.refused["server"] += 1
            raise LimitExceeded(self.limit, self._all_rate, retry_after=-level / self._all_rate)

    def spend(self, user_id: str, size: int) -> None:
        """Count what an owner has appended."""
        self.appended += size
        self._owners.spend(user_id, self._owner_rate, size)
        self._all.spend("", self._all_rate, size)
