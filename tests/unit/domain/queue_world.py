"""A small world of jobs, queues and keys in memory, which counts as the tables do.

It decides nothing: that is left to the functions of the domain.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jobledger_server.domain.commands import Claim, Create, JobCommand
from jobledger_server.domain.decisions import create, decide
from jobledger_server.domain.errors import DomainError
from jobledger_server.domain.job import Instant, Job, JobId, Micros, Phase
from jobledger_server.domain.queues import (
    EndedReasons,
    KeyState,
    Limits,
    Queue,
    QueueName,
    Tally,
    claim_or_block,
    make_ready,
    next_queues,
    queue_name,
    rule_name,
)
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import NOW, SECOND, ids

LEASE = Micros(60 * SECOND)

Level = tuple[str, int]
"""A job type and a priority."""


@dataclass
class Counters:
    """The row of a queue or of a level. `turns` is how many jobs were claimed from a level."""

    vtime: int = 0
    turns: int = 0
    phases: list[int] = field(default_factory=lambda: [0] * len(Phase))

    @property
    def ready(self) -> int:
        return self.phases[Phase.READY]

    def add(self, phases: Sequence[int]) -> None:
        self.phases = [sum(pair) for pair in zip(self.phases, phases, strict=True)]


@dataclass
class Key:
    """The row of a concurrency key."""

    running: int = 0
    blocked: int = 0
    recheck: bool = False


@dataclass
class Rule:
    """What an operator has set for a key, or for all keys with this name."""

    max_running: int | None = None
    paused: bool = False


@dataclass(frozen=True)
class Begin:
    """A queue that became claimable: its virtual time, what it was before, and its level's."""

    vtime: int
    own: int
    level: int


class World:
    """The rows of the tables."""

    def __init__(self) -> None:
        self.now = NOW
        self.new_id = ids()
        self.jobs: dict[JobId, Job] = {}
        self.levels: dict[Level, Counters] = {}
        self.queues: dict[QueueName, Counters] = {}
        self.keys: dict[str, Key] = {}
        self.rules: dict[str, Rule] = {}
        self.paused_types: set[str] = set()
        self.begun: list[Begin] = []

    def of_key(self, key: str, phase: Phase) -> list[Job]:
        return [job for job in self.in_phase(phase) if job.concurrency_key == key]

    def in_phase(self, phase: Phase) -> list[Job]:
        """Return the jobs in this phase, the oldest first."""
        found = [job for job in self.jobs.values() if job.phase is phase]
        return sorted(found, key=lambda job: (job.create_time, job.id))

    def state(self, key: str) -> KeyState:
        """Return the state of a key, by its own rule and that for its name."""
        own, general = (self.rules.get(name, Rule()) for name in (key, rule_name(key)))
        most = general.max_running if own.max_running is None else own.max_running
        held = len(self.of_key(key, Phase.HELD))
        return KeyState(held, most, own.paused or general.paused)

    def limits(self, job: Job) -> Limits:
        key = self.state(job.concurrency_key) if job.concurrency_key else KeyState()
        return Limits(key, type_paused=job.job_type in self.paused_types)

    def create(self, command: Create, *, full: bool) -> Job:
        """Create a job. `full` is what the server believes of its key, which may be wrong."""
        unique = command.user_id, command.job_type, command.unique_key
        active = [
            job
            for job in self.jobs.values()
            if job.phase is not None and (job.user_id, job.job_type, job.unique_key) == unique
        ]
        decision = create(
            None,
            command,
            now=self.now,
            new_id=self.new_id,
            active=active[0] if command.unique_key and active else None,
            full=full,
        )
        self.commit([decision])
        return decision.job

    def send(self, *commands: JobCommand) -> list[Decision | DomainError]:
        """Decide commands of one batch, and write them together; return the outcomes."""
        outcomes: list[Decision | DomainError] = []

        def decided() -> Iterator[Decision]:
            for command in commands:
                job = self.jobs[command.job_id]
                limits = self.limits(job)
                try:
                    decision = decide(job, command, now=self.now, new_id=self.new_id, limits=limits)
                except DomainError as refusal:
                    outcomes.append(refusal)
                else:
                    outcomes.append(decision)
                    yield decision

        self.commit(decided())
        return outcomes

    def claim(self, job_types: Iterable[str], max_jobs: int) -> list[Job]:
        """Claim jobs as the ledger does; return those that were started, in order."""
        limits = {name: max_jobs for name in job_types if name not in self.paused_types}
        queues = next_queues(self.first_queues(limits), limits, limit=max_jobs)
        turns = Counter(queue.name for queue in queues)
        ready = self.in_phase(Phase.READY)
        planned = [
            job
            for name in turns
            for job in [j for j in ready if queue_name(j) == name][: turns[name]]
        ]
        keys = {job.concurrency_key: self.state(job.concurrency_key) for job in planned}
        command = Claim(
            worker_id="w", job_types=frozenset(limits), max_jobs=max_jobs, lease_duration=LEASE
        )
        decided = [claim_or_block(job, command, self.now, keys) for job in planned]
        decisions = [decision for decision in decided if decision is not None]
        self.commit(decisions, {name: self.queues[name].vtime for name in turns})
        started = [decision.job for decision in decisions if decision.changed]
        for job in started:
            self.levels[job.job_type, job.priority].turns += 1
        return started

    def first_queues(self, limits: Mapping[str, int]) -> list[Queue]:
        """Return the first claimable queues of each type, as many as its limit."""
        ready = {queue_name(job) for job in self.in_phase(Phase.READY)}
        queues = [
            Queue(name, number, row.vtime, row.ready)
            for number, (name, row) in enumerate(self.queues.items())
            if name in ready
        ]
        queues.sort(key=lambda each: (-each.name.priority, each.vtime, each.number))
        return [
            queue
            for name, most in limits.items()
            for queue in [each for each in queues if each.name.job_type == name][:most]
        ]

    def unblock(self, key: str) -> None:
        """Give the free slots of a key to blocked jobs of each type, as the ledger does."""
        free = self.state(key).free
        decisions = []
        for name in sorted({job.job_type for job in self.of_key(key, Phase.BLOCKED)}):
            blocked, ready = (
                [job for job in self.of_key(key, phase) if job.job_type == name]
                for phase in (Phase.BLOCKED, Phase.READY)
            )
            wanted = max(0, free - len(ready))
            decisions += [make_ready(job, self.now) for job in blocked[:wanted]]
        self.commit(decisions)
        self.keys[key].recheck = False

    def configure(self, name: str, rule: Rule) -> None:
        """Set a rule, and have somebody look at its keys."""
        self.rules[name] = rule
        for key, row in self.keys.items():
            if name in (key, rule_name(key)) and row.blocked:
                row.recheck = True

    def commit(
        self, decisions: Iterable[Decision], vtimes: Mapping[QueueName, int] | None = None
    ) -> None:
        """Write decisions, and add what they change to the counters."""
        tally = Tally(vtimes or {}, EndedReasons())
        for decision in decisions:
            for step in (decision.via, decision):
                if step is not None:
                    tally.add(self.jobs.get(step.job.id), step.job)
                    self.jobs[step.job.id] = step.job
        for level, (vtime, *phases) in tally.levels.items():
            row = self.levels.setdefault(level, Counters())
            row.add(phases)
            row.vtime = max(row.vtime, vtime)
        self.begun = []
        for name, change in tally.queues.items():
            level_row = self.levels[name.job_type, name.priority]
            row = self.queues.setdefault(name, Counters())
            was_empty, own = not row.ready, row.vtime
            row.add(change.phases)
            if was_empty and row.ready:
                row.vtime = max(row.vtime, level_row.vtime)
                self.begun.append(Begin(row.vtime, own, level_row.vtime))
            row.vtime += change.claimed
        for key, count in tally.keys.items():
            key_row = self.keys.setdefault(key, Key())
            key_row.running += count.running
            key_row.blocked += count.blocked
            key_row.recheck |= (count.recheck or count.freed) and key_row.blocked > 0

    def pass_time(self, by: int) -> None:
        self.now = Instant(self.now + by)
