"""The port to what operators set and read: pauses, limits, defaults, counts, and why a job waits.

Also the key of watch tokens, which operators renew.

Every method raises as those of `store.Store`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from jobledger_server.domain.job import Instant, JobId, JobStatus
from jobledger_server.domain.type_defaults import TypeDefaults
from jobledger_server.domain.waiting import Pause, WaitFacts


class Limit(Struct, frozen=True):
    """A limit or a pause of a concurrency key, or of all keys that begin with it and a `:`.

    Attributes:
        name: The key, or the part of the keys before their first `:`.
        max_running: How many jobs with one such key may be held; None for no limit.
        pause: Set while it is paused.
        running: Jobs with these keys that are held.
        blocked: Jobs with these keys that are blocked.

    Of many keys only the first are counted: an answer counts those of MAX_COUNTED_KEYS, and the
    names in it have equal shares.
    """

    name: str
    max_running: int | None = None
    pause: Pause | None = None
    running: int = 0
    blocked: int = 0


class QueueSettings(Protocol):
    """Sets pauses, limits and defaults of job types.

    A change is durable when its call returns, and no job starts against it from then on, nor is one
    created without its defaults. It raises `config_version`; see `store.Config`. Keys with blocked
    jobs that may have a free slot now are found by `Store.find_rechecks`. However many keys it
    concerns, others wait for a few at most.
    """

    async def pause_type(self, job_type: str, *, actor: str, reason: str) -> Pause:
        """Pause a job type, and return its pause: the earlier one if it was paused already.

        Raises:
            LimitExceeded: As many types are paused as may be.
        """

    async def resume_type(self, job_type: str) -> bool:
        """End the pause of a job type; return whether it was paused."""

    async def set_limit(self, name: str, max_running: int | None) -> Limit:
        """Set the limit of a name, or remove it with None.

        Raises:
            LimitExceeded: As many names have a limit or a pause as may have one.
        """

    async def pause_key(self, name: str, *, actor: str, reason: str) -> Limit:
        """Pause a name. It keeps an earlier pause. Raises LimitExceeded as `set_limit` does."""

    async def resume_key(self, name: str) -> bool:
        """End the pause of a name; return whether it was paused."""

    async def limits(self, *, after: str, limit: int) -> list[Limit]:
        """Return the limits and pauses of names after `after`, in the order of their names."""

    async def set_type_defaults(self, job_type: str, defaults: TypeDefaults) -> None:
        """Replace the defaults of a job type, or remove them if they are NO_DEFAULTS.

        Raises:
            LimitExceeded: As many types have defaults as may have them.
        """

    async def type_defaults(self, *, after: str, limit: int) -> list[tuple[str, TypeDefaults]]:
        """Return the types after `after` that have defaults, in the order of their names."""

    async def watch_key(self) -> bytes:
        """Return the key by which watch tokens are signed: 32 random bytes."""

    async def renew_watch_key(self) -> None:
        """Replace the key of watch tokens by another one."""


class PhaseCounts(Struct, frozen=True):
    """How many jobs are in each phase."""

    ready: int = 0
    blocked: int = 0
    scheduled: int = 0
    held: int = 0
    waiting: int = 0

    def __add__(self, other: "PhaseCounts") -> "PhaseCounts":
        return PhaseCounts(
            self.ready + other.ready,
            self.blocked + other.blocked,
            self.scheduled + other.scheduled,
            self.held + other.held,
            self.waiting + other.waiting,
        )


class EndedCount(Struct, frozen=True):
    """How many jobs ended with a status and a reason, which is empty if there was no error."""

    status: JobStatus
    reason: str
    count: int


class TypeStats(Struct, frozen=True):
    """The jobs of one type.

    Attributes:
        job_type: The type.
        priorities: The counts by priority, the highest first, without those that have no jobs.
        oldest: Since when the oldest job waits that may be claimed; None if there is none.
        pause: Set while the type is paused.
        polled: Whether a worker asks for jobs of the type.
        ended_last_minute: The jobs that ended in the last minute, the greatest count first.
        ended_last_hour: The jobs that ended in the last hour, likewise.
    """

    job_type: str
    priorities: Mapping[int, PhaseCounts]
    oldest: Instant | None = None
    pause: Pause | None = None
    polled: bool = False
    ended_last_minute: Sequence[EndedCount] = ()
    ended_last_hour: Sequence[EndedCount] = ()

    @property
    def total(self) -> PhaseCounts:
        """The counts of all priorities."""
        return sum(self.priorities.values(), PhaseCounts())


class StatsPage(Struct, frozen=True):
    """Counts as of one commit.

    Attributes:
        time: When they were read, by the database server's clock.
        types: In the order of their names.
        more: Whether others may follow.
    """

    time: Instant
    types: Sequence[TypeStats]
    more: bool


class QueueReports(Protocol):
    """Reads counts, and what keeps a job waiting. The cost does not grow with the jobs."""

    async def stats(
        self,
        *,
        limit: int,
        after: str = "",
        job_types: Collection[str] = (),
        fairness_key: str = "",
    ) -> StatsPage:
        """Return the counts of job types.

        Args:
            limit: Types at most.
            after: The name that the types come after.
            job_types: Only these, also those without jobs. Default: all that have jobs which are
                not terminal, are paused, or had jobs end in the last hour.
            fairness_key: Only the jobs of this tenant, and without `oldest` and what ended.
        """

    async def wait_facts(self, job_id: JobId, *, user_id: str | None) -> WaitFacts | None:
        """Return what decides why a job waits, or None if it does not exist.

        Args:
            job_id: The job.
            user_id: The owner that it must have. If it is given, the holders are its own jobs only.
        """
