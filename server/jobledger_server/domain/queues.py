"""Who goes next: queues, their turns, and the limits of concurrency keys.

A queue has the ready jobs of one type, priority and tenant, oldest first. A higher priority
always goes first. Of one priority the tenants take turns by start-time fair queuing: P. Goyal,
H. Vin and H. Cheng, "Start-time Fair Queueing" (1996). Each queue has a virtual time that advances
by one with each job that is claimed from it, and the lowest goes next. A queue that was empty
begins at the virtual time of its level, so a tenant that was away saves nothing up.

A job whose concurrency key is at its limit stands in nobody's way: it is blocked, and leaves its
queue until a slot is free. See docs/decisions/0056-who-goes-next.md.

Pure: nothing is read or stored. The counters change in the commit that changes their jobs.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from jobledger_server.domain.commands import Claim
from jobledger_server.domain.job import MICROS_PER_SECOND, AnyPhase, Instant, Job, JobStatus, Phase
from jobledger_server.domain.leases import SERVICE_REASONS, claim
from jobledger_server.domain.state_machine import Decision, due_time


class QueueName(NamedTuple):
    """What a queue is known by."""

    job_type: str
    priority: int
    tenant: str


def queue_name(job: Job) -> QueueName:
    """Return the name of the job's queue."""
    return QueueName(job.job_type, job.priority, job.tenant)


class Queue(Struct, frozen=True):
    """A queue that has ready jobs. `ready` is how many.

    Of queues that are equal otherwise that of the lowest `number` goes next: the oldest one.
    """

    name: QueueName
    number: int
    vtime: int
    ready: int


def next_queues(
    queues: Sequence[Queue], limits: Mapping[str, int], *, limit: int
) -> Iterator[Queue]:
    """Yield the queues that the next jobs come from, one for each job.

    Types of one priority take turns, in the order of `limits`.

    Args:
        queues: Of each type the first ones, by priority, virtual time and number: as many as its
            limit. Those that come after `limit` others, as `Dialect.find_queues` orders them, may
            be left out.
        limits: By job type, how many jobs at most.
        limit: How many jobs at most of all types.
    """
    by_number = {queue.number: queue for queue in queues}
    heaps: defaultdict[str, list[tuple[int, int, int, int]]] = defaultdict(list)
    for queue in queues:
        job_type, priority, _ = queue.name
        heaps[job_type].append((-priority, queue.vtime, queue.number, queue.ready))
    for heap in heaps.values():
        heapq.heapify(heap)
    # By the priority that a type has next, what was taken from it, and its place in `limits`.
    turns = [
        (heaps[name][0][0], 0, place, name)
        for place, (name, most) in enumerate(limits.items())
        if name in heaps and most > 0
    ]
    heapq.heapify(turns)
    for _ in range(limit):
        if not turns:
            return
        _, taken, place, job_type = turns[0]
        heap = heaps[job_type]
        priority, vtime, number, ready = heap[0]
        yield by_number[number]
        if ready > 1:
            heapq.heapreplace(heap, (priority, vtime + 1, number, ready - 1))
        else:
            heapq.heappop(heap)
        if heap and taken + 1 < limits[job_type]:
            heapq.heapreplace(turns, (heap[0][0], taken + 1, place, job_type))
        else:
            heapq.heappop(turns)


FORGOTTEN_STARTS = 1
"""A queue without jobs is deleted if it is at most this many starts ahead of its level.

The only start of a tenant that comes once leaves its queue one start ahead. If all tenants of a
level come once, the level never advances, and none of these queues would ever be deleted.

A tenant whose queue was deleted begins at the virtual time of its level again. So with each
deletion it gains this many starts at most, which is what a new tenant has. Its queue must be empty
for that, and each server sweeps once a minute.
"""

MAX_RUNNING = 1_000_000
"""The greatest limit of a concurrency key."""


class KeyState(Struct, frozen=True):
    """The state of a concurrency key.

    Attributes:
        running: How many jobs with this key are held.
        max_running: How many may be; None for no limit.
        paused: Whether none may start.
    """

    running: int = 0
    max_running: int | None = None
    paused: bool = False

    @property
    def free(self) -> int:
        """How many more jobs may start."""
        if self.paused:
            return 0
        limit = MAX_RUNNING if self.max_running is None else self.max_running
        return max(0, limit - self.running)

    def changed(self, more: int) -> "KeyState":
        """Return the state with so many more jobs that are held."""
        return replace(self, running=self.running + more)


class Limits(Struct, frozen=True):
    """What an operator lets a job do.

    Attributes:
        key: The state of its concurrency key.
        type_paused: Whether no job of its type may start.
    """

    key: KeyState = KeyState()
    type_paused: bool = False


NO_LIMITS = Limits()
"""The limits of a job that is not limited."""


def rule_name(key: str) -> str:
    """Return the part of a concurrency key before its first `:`."""
    return key.partition(":")[0]


def block(job: Job) -> Decision:
    """Take a ready job out of its queue, for its key has no free slot."""
    if job.phase is not Phase.READY:
        return Decision(job=job, changed=False)
    return _in_phase(job, Phase.BLOCKED)


def claim_or_block(
    job: Job, command: Claim, now: Instant, keys: MutableMapping[str, KeyState]
) -> Decision | None:
    """Start an attempt for the worker, or block the job if its key has no free slot.

    Args:
        job: The job, under its lock.
        command: The claim.
        now: The database server's time.
        keys: The states of the concurrency keys, under the lock of the feed. A start is counted.

    Returns:
        None if the job is not ready or its deadline has passed.
    """
    started = claim(job, command, now)
    key = job.concurrency_key
    if started is None or not key:
        return started
    if not keys[key].free:
        return block(job)
    keys[key] = keys[key].changed(1)
    return started


def make_ready(job: Job, now: Instant, *, full: bool = False) -> Decision:
    """Put a job into its queue whose time has come, or that was blocked.

    Args:
        job: The job, in any state.
        now: The database server's time.
        full: Whether its key is probably at its limit. If so, a job that is due is blocked, for a
            claim would only pass over it.
    """
    if job.phase is Phase.BLOCKED:
        return _in_phase(job, Phase.READY)
    if job.phase is Phase.SCHEDULED and (due_time(job) or 0) <= now:
        return _in_phase(job, Phase.BLOCKED if full else Phase.READY)
    return Decision(job=job, changed=False)


def _in_phase(job: Job, phase: Phase) -> Decision:
    # No change of the job: it has no new version, and nobody is told of it.
    return Decision(job=replace(job, phase=phase), changed=False, renewed=True)


ENDED_STEP = 10_000_000
"""Jobs that ended are counted in steps of this many microseconds."""


MAX_ENDED_REASONS = 100
"""Reasons of a job type that a server counts apart in an hour, besides those of the service."""

MAX_ENDED_PAIRS = 10_000
"""The same for all types together."""

OTHER_REASON = "OTHER"
"""Stands for all further reasons: workers may give as many as they like."""

_HOUR = 3600 * MICROS_PER_SECOND


class EndedReasons:
    """The reasons of ended jobs that a server counts apart, in each hour of the clock."""

    def __init__(self) -> None:
        self._hour = 0
        self._pairs = 0
        self._seen: dict[str, set[str]] = {}  # by job type

    def counted(self, job_type: str, reason: str, time: Instant) -> str:
        """Return the reason that a job is counted under, or OTHER_REASON."""
        if not reason or reason in SERVICE_REASONS:
            return reason
        hour = time // _HOUR
        if hour > self._hour:
            self._hour, self._pairs = hour, 0
            self._seen.clear()
        seen = self._seen.get(job_type, set())
        if reason not in seen:
            if len(seen) >= MAX_ENDED_REASONS or self._pairs >= MAX_ENDED_PAIRS:
                return OTHER_REASON
            self._seen.setdefault(job_type, seen).add(reason)
            self._pairs += 1
        return reason


class QueueCount(Struct):
    """What changes of a queue's counters: how many jobs more, and how many were claimed."""

    claimed: int = 0
    phases: list[int] = []


class KeyCount(Struct):
    """What changes of a concurrency key's counters.

    `recheck`: a blocked job may have a free slot now, so somebody has to look. `freed`: likewise,
    because a slot became free.
    """

    running: int = 0
    blocked: int = 0
    recheck: bool = False
    freed: bool = False


class Tally:
    """What a batch of decisions does to the counters.

    Args:
        vtimes: The virtual times of the queues that jobs are claimed from. A start by the job's id
            takes no worker from anybody, so it is not counted as a turn.
        reasons: Those of ended jobs that are counted apart.
    """

    def __init__(self, vtimes: Mapping[QueueName, int], reasons: EndedReasons) -> None:
        self._vtimes = vtimes
        self._reasons = reasons
        self.queues: dict[QueueName, QueueCount] = {}
        self.levels: defaultdict[tuple[str, int], list[int]] = defaultdict(
            lambda: [0] * (1 + len(Phase))
        )
        """By job type and priority: the virtual time that is reached, and the phases' counts."""
        self.keys: defaultdict[str, KeyCount] = defaultdict(KeyCount)
        """By concurrency key."""
        self.ended: Counter[tuple[str, int, JobStatus, str]] = Counter()
        """By job type, time, status and reason."""

    def add(self, before: Job | None, after: Job) -> None:
        """Count a change of a job; None before its creation."""
        old, new = None if before is None else before.phase, after.phase
        if before is not None and old is not None and new is None and after.complete_time:
            reason = "" if after.error is None else after.error.reason
            reason = self._reasons.counted(after.job_type, reason, after.complete_time)
            step = after.complete_time // ENDED_STEP * ENDED_STEP
            self.ended[after.job_type, step, after.status, reason] += 1
        if before is not None and before.priority != after.priority:
            # It goes from one queue to another, in the phase that it had.
            self._count(before, old, None)
            self._count(after, None, old)
        if old is new:
            return
        self._count(after, old, new)
        if after.concurrency_key:
            self._add_key(self.keys[after.concurrency_key], old, new)

    def _count(self, job: Job, old: AnyPhase, new: AnyPhase) -> None:
        """Count a change of phase in the queue and the level of a job."""
        name = queue_name(job)
        queue = self.queues.setdefault(name, QueueCount(0, [0] * len(Phase)))
        level = self.levels[job.job_type, job.priority]
        for phase, change in ((old, -1), (new, 1)):
            if isinstance(phase, Phase):
                queue.phases[phase] += change
                level[1 + phase] += change
        if new is Phase.HELD and name in self._vtimes:
            level[0] = max(level[0], self._vtimes[name] + queue.claimed)
            queue.claimed += 1

    def _add_key(self, key: KeyCount, old: AnyPhase, new: AnyPhase) -> None:
        key.running += (new is Phase.HELD) - (old is Phase.HELD)
        key.blocked += (new is Phase.BLOCKED) - (old is Phase.BLOCKED)
        # A slot became free; or a ready job left that was to use one; or a job was blocked before
        # anybody looked whether a slot is free.
        key.freed |= old is Phase.HELD
        key.recheck |= old is Phase.READY and new not in (Phase.HELD, Phase.BLOCKED)
        key.recheck |= new is Phase.BLOCKED and old is not Phase.READY
