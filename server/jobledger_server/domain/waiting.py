"""Why a job waits: what keeps it from being started, from facts that were read together.

Pure: nothing is read or stored.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from jobledger_server.domain.job import Instant, Job, JobId, Phase
from jobledger_server.domain.queues import KeyState
from jobledger_server.domain.state_machine import due_time


class Pause(Struct, frozen=True):
    """A pause of a job type or of a concurrency key.

    Attributes:
        time: When it began.
        actor: The identity of the caller that paused it; empty on a server that knows none.
        reason: Why, as that caller said.
    """

    time: Instant
    actor: str
    reason: str


class NoWorker(Struct, frozen=True):
    """No worker asks for jobs of this type."""

    job_type: str


class TypePaused(Struct, frozen=True):
    """The job's type is paused."""

    job_type: str
    pause: Pause


class KeyPaused(Struct, frozen=True):
    """The job's concurrency key is paused, or the part of it before its `:`."""

    concurrency_key: str
    pause: Pause


class LimitReached(Struct, frozen=True):
    """As many jobs with the job's concurrency key are held as may be. `holders` are some."""

    concurrency_key: str
    running: int
    max_running: int
    holders: Sequence[JobId]


class NotDue(Struct, frozen=True):
    """The job waits for its time."""

    schedule_time: Instant


class Queued(Struct, frozen=True):
    """The job may be claimed, and others go first.

    Attributes:
        ahead: Jobs of its queue that are before it, counted no further than a limit.
        capped: Whether there are more.
        higher_priority: Jobs of its type that may be claimed and have a higher priority.
        tenants: Tenants with such jobs of its type and priority, counted no further than a limit.
    """

    ahead: int
    capped: bool
    higher_priority: int
    tenants: int


class OpenGroup(Struct, frozen=True):
    """The job is a group, which ends with its jobs: so many of them have not ended."""

    open: int
    sealed: bool


WaitReason = NoWorker | TypePaused | KeyPaused | LimitReached | NotDue | Queued | OpenGroup


class WaitFacts(Struct, frozen=True):
    """What decides why a job waits.

    Attributes:
        job: The job.
        polled: Whether a worker asks for its type.
        type_pause: The pause of its type.
        key: The state of its concurrency key.
        key_pauses: By name, the pauses that hold for its concurrency key.
        holders: Jobs that hold slots of its key.
        place: Where it stands in its queue, if it may be claimed.
    """

    job: Job
    polled: bool
    type_pause: Pause | None = None
    key: KeyState = KeyState()
    key_pauses: Sequence[tuple[str, Pause]] = ()
    holders: Sequence[JobId] = ()
    place: Queued = Queued(0, capped=False, higher_priority=0, tenants=1)


def wait_reasons(facts: WaitFacts) -> Iterator[WaitReason]:
    """Yield everything that keeps a job from being started; nothing if it does not wait."""
    job, key = facts.job, facts.key
    if not isinstance(job.phase, Phase) or job.phase is Phase.HELD:
        return
    if job.children is not None:
        yield OpenGroup(job.children.open, job.children.sealed)
        return
    if not facts.polled:
        yield NoWorker(job.job_type)
    if facts.type_pause is not None:
        yield TypePaused(job.job_type, facts.type_pause)
    for name, pause in facts.key_pauses:
        yield KeyPaused(name, pause)
    if key.max_running is not None and key.running >= key.max_running:
        yield LimitReached(job.concurrency_key, key.running, key.max_running, facts.holders)
    if job.phase is Phase.SCHEDULED:
        yield NotDue(due_time(job) or job.create_time)
    # A blocked job whose key has a free slot is about to be put into its queue.
    elif job.phase is Phase.READY or key.free:
        yield facts.place
