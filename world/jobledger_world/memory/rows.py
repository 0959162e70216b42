"""A job as it is stored, with all that belongs to it, and the groups in which it is found."""

from collections.abc import Hashable, Iterator, Mapping

from msgspec import Struct

from jobledger_server.domain.job import (
    NO_PAYLOADS,
    AnyPhase,
    Asset,
    AssetId,
    Attempt,
    Instant,
    Job,
    JobId,
    Payloads,
    Phase,
    Transition,
)
from jobledger_server.domain.queues import QueueName, queue_name
from jobledger_server.store import Change, StoredJob

Group = tuple[Hashable, ...]
"""Jobs that are found together."""

KEPT: Group = ("kept",)
"""Those that were not deleted."""

DELETED: Group = ("deleted",)
"""Those that are kept for the feed alone."""

ACTIVE: Group = ("active",)
"""Those that are not terminal."""

SCHEDULED: Group = ("scheduled",)
"""Those that wait for their time."""


def active_of(user_id: str) -> Group:
    """Return the group of an owner's jobs that are not terminal."""
    return "active", user_id


def held_by(worker_id: str) -> Group:
    """Return the group of the jobs that a worker holds."""
    return "worker", worker_id


def of_owner(user_id: str) -> Group:
    """Return the group of an owner's jobs that were not deleted."""
    return "kept", user_id


def in_queue(queue: QueueName, phase: AnyPhase) -> Group:
    """Return the group of a queue's jobs in this phase."""
    return "queue", queue, phase


def with_key(key: str, phase: AnyPhase) -> Group:
    """Return the group of the jobs with a concurrency key in this phase."""
    return "key", key, phase


def children_of(group_id: JobId) -> Group:
    """Return the group of the jobs that belong to a group of the service."""
    return "children", group_id


def requested(user_id: str, request_id: str) -> Group:
    """Return the group of the job that was created by a request."""
    return "request", user_id, request_id


def unique(user_id: str, job_type: str, unique_key: str) -> Group:
    """Return the group of the active job with a unique key."""
    return "unique", user_id, job_type, unique_key


def rerun_of(origin: JobId) -> Group:
    """Return the group of the rerun of this job."""
    return "origin", origin


OF_ONE = frozenset({"request", "unique", "origin"})
"""The first parts of the groups that have one job at most."""


class Row(Struct, frozen=True):
    """A job as it is stored.

    Attributes:
        job: The job, as of its latest change but its deletion, with the phase and the lease that it
            has since.
        seq: The sequence number of that change.
        deadline: Not later than the earliest time at which something happens without a call. A
            report can postpone that and leaves this as it is.
        payloads: Its payloads.
        start: The change that was its first transition.
        end: Its last transition.
        deletion: The change that deleted it.
        attempts: By number, those that ended without ending the job.
        assets: By id, in the order in which they were linked.
    """

    job: Job
    seq: int
    deadline: Instant | None = None
    payloads: Payloads = NO_PAYLOADS
    start: Change | None = None
    end: Transition | None = None
    deletion: Change | None = None
    attempts: Mapping[int, Attempt] = {}
    assets: Mapping[AssetId, Asset] = {}

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """Its transitions, oldest first."""
        start = () if self.start is None else self.start.transitions
        return start if self.end is None else (*start, self.end)

    @property
    def seqs(self) -> set[int]:
        """Where it is in the feed."""
        changes = (self.start, self.deletion)
        return {self.seq, *(change.seq for change in changes if change is not None)}

    def change_at(self, seq: int) -> Change:
        """Return its change at one of `seqs`."""
        if self.deletion is not None and seq == self.deletion.seq:
            return self.deletion
        if seq != self.seq:
            assert self.start is not None  # noqa: S101
            return self.start
        # If that was a transition, it was the last one.
        is_transition = self.end is not None or (self.start is not None and self.start.seq == seq)
        return Change(self.job, seq, self.transitions[-1:] if is_transition else ())

    def stored(self, *, full: bool) -> StoredJob:
        """Return the job as it is read."""
        return StoredJob(self.job, self.transitions, self.payloads if full else NO_PAYLOADS)

    def groups(self) -> Iterator[Group]:
        """Yield the groups that it is in."""
        job, phase = self.job, self.job.phase
        if self.deletion is not None:
            yield DELETED
            return
        yield KEPT
        yield of_owner(job.user_id)
        if job.request_id:
            yield requested(job.user_id, job.request_id)
        if job.origin_job_id is not None:
            yield rerun_of(job.origin_job_id)
        if job.group_id is not None:
            yield children_of(job.group_id)
        if phase is None:
            return
        yield ACTIVE
        yield active_of(job.user_id)
        if job.phase is Phase.HELD:
            yield held_by(job.worker_id)
        yield in_queue(queue_name(job), phase)
        if phase is Phase.SCHEDULED:
            yield SCHEDULED
        if job.concurrency_key:
            yield with_key(job.concurrency_key, phase)
        if job.unique_key:
            yield unique(job.user_id, job.job_type, job.unique_key)
