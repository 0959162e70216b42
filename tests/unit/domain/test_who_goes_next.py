"""Any history of creations, claims, ends, limits and pauses keeps what the queues promise."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Create,
    Expire,
    JobCommand,
    Release,
    Update,
)
from jobledger_server.domain.errors import (
    ConcurrencyLimitReached,
    DomainError,
    Paused,
    UniqueKeyTaken,
)
from jobledger_server.domain.job import Instant, Job, JobId, JobStatus, Micros, Phase
from jobledger_server.domain.queues import QueueName, make_ready, queue_name
from jobledger_server.domain.state_machine import due_time
from tests.unit.domain.jobs import ERROR, SECOND
from tests.unit.domain.queue_world import Counters, Key, Level, Rule, World

TYPES = ("render", "encode")
TENANTS = ("ada", "bob", "eve")
KEYS = ("db", "s3:a")
MOST = 4
"""Jobs that a claim requests at most."""

limits = st.sampled_from([None, 0, 1, 1, 2])
seldom = st.sampled_from([False, False, False, True])


@dataclass
class Wait:
    """A ready job: how many jobs of its level were claimed before it became ready.

    `position` is that in its queue, and grows if an older job comes in before it.
    """

    turns: int
    position: int


def level_of(job: Job) -> Level:
    return job.job_type, job.priority


class WhoGoesNext(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.waits: dict[JobId, Wait] = {}

    def some(self, data: st.DataObject, *phases: Phase) -> Job | None:
        jobs = [job for phase in phases for job in self.world.in_phase(phase)]
        return data.draw(st.sampled_from(jobs)) if jobs else None

    @rule(
        job_type=st.sampled_from(TYPES),
        priority=st.sampled_from([5, 5, 9]),
        user=st.sampled_from(TENANTS),
        tenant=st.sampled_from(["", "", *TENANTS]),
        key=st.sampled_from(["", "db", *KEYS]),
        delay=st.sampled_from([None, None, None, 2 * SECOND]),
        count=st.sampled_from([1, 1, 2, 9]),
        full=st.booleans(),
    )
    def create(
        self,
        job_type: str,
        priority: int,
        user: str,
        tenant: str,
        key: str,
        delay: int | None,
        count: int,
        full: bool,  # noqa: FBT001
    ) -> None:
        command = Create(
            user_id=user,
            job_type=job_type,
            priority=priority,
            fairness_key=tenant,
            concurrency_key=key,
            max_attempts=3,
            schedule_time=None if delay is None else Instant(self.world.now + delay),
        )
        for _ in range(count):
            self.world.create(command, full=full and bool(key))
            self.watch_waits()

    @rule(user=st.sampled_from(TENANTS), key=st.sampled_from("xy"), return_existing=st.booleans())
    def create_one_of_a_kind(self, user: str, key: str, return_existing: bool) -> None:  # noqa: FBT001
        command = Create(
            user_id=user, job_type=TYPES[0], unique_key=key, return_existing=return_existing
        )
        active = [
            job
            for job in self.world.jobs.values()
            if job.phase is not None and (job.user_id, job.unique_key) == (user, key)
        ]
        if active and not return_existing:
            with pytest.raises(UniqueKeyTaken) as refusal:
                self.world.create(command, full=False)
            assert refusal.value.job_id == active[0].id
        else:
            created = self.world.create(command, full=False)
            assert not active or created is active[0]

    @rule(job_types=st.sets(st.sampled_from(TYPES), min_size=1), max_jobs=st.integers(1, MOST))
    def claim(self, job_types: set[str], max_jobs: int) -> None:
        world = self.world
        states = {key: world.state(key) for key in KEYS}
        started = world.claim(sorted(job_types), max_jobs)
        assert not {job.job_type for job in started} & world.paused_types
        for key, state in states.items():
            held = len(world.of_key(key, Phase.HELD))
            if held > state.running:
                assert not state.paused
                assert state.max_running is None or held <= state.max_running
        for job in started:
            assert (due_time(job) or 0) <= world.now
            passed_over = [
                left.priority
                for left in world.in_phase(Phase.READY)
                if left.job_type == job.job_type
            ]
            assert max(passed_over, default=0) <= job.priority, "a higher priority goes first"
        may_start = job_types - world.paused_types
        ready = [job for job in world.in_phase(Phase.READY) if job.job_type in may_start]
        blocked = [job for job in self.waits if world.jobs[job].phase is Phase.BLOCKED]
        assert started or blocked or not ready, "a claim does not pass over what may start"

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        """A worker starts a job by its id: it takes no turn."""
        job = self.some(data, Phase.READY, Phase.BLOCKED)
        if job is None:
            return
        key, paused = job.concurrency_key, job.job_type in self.world.paused_types
        state = self.world.state(key) if key else None
        (outcome,) = self.world.send(ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING))
        if paused or (state is not None and state.paused):
            assert isinstance(outcome, Paused)
        elif state is not None and not state.free:
            assert isinstance(outcome, ConcurrencyLimitReached)
        else:
            assert not isinstance(outcome, DomainError)

    @rule(
        data=st.data(),
        how=st.sampled_from(["complete", "complete", "retry", "retry later", "release", "expire"]),
        restart=seldom,
    )
    def end(self, data: st.DataObject, how: str, restart: bool) -> None:  # noqa: FBT001
        """A job is no longer held, and may be started again in the same commit."""
        job = self.some(data, Phase.HELD)
        if job is None:
            return
        fails = ChangeStatus(
            job_id=job.id,
            target=JobStatus.FAILED,
            error=ERROR,
            retryable=True,
            retry_delay=Micros(0),
        )
        commands: dict[str, JobCommand] = {
            "complete": ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED),
            "retry": replace(fails, retry_delay=Micros(0)),
            "retry later": fails,
            "release": Release(job_id=job.id, attempt=job.attempt),
            "expire": Expire(job_id=job.id),
        }
        if how == "expire":
            self.world.now = max(self.world.now, job.lease_expire_time or self.world.now)
        again = ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING)
        self.world.send(commands[how], *([again] if restart else []))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.some(data, Phase.READY, Phase.BLOCKED, Phase.SCHEDULED)
        if job is not None:
            self.world.send(Cancel(job_id=job.id, user_id=job.user_id))

    @rule(
        data=st.data(),
        priority=st.sampled_from([None, 5, 9]),
        due_in=st.sampled_from([None, 0, 2 * SECOND]),
        cancels=seldom,
    )
    def update(
        self,
        data: st.DataObject,
        priority: int | None,
        due_in: int | None,
        cancels: bool,  # noqa: FBT001
    ) -> None:
        """A job goes to another queue, or gets another time, and may end in the same commit."""
        job = self.some(data, Phase.READY, Phase.BLOCKED, Phase.SCHEDULED)
        if job is None or job.status is not JobStatus.QUEUED:
            return
        command = Update(
            job_id=job.id,
            user_id=job.user_id,
            priority=priority,
            schedule_time=None if due_in is None else Instant(self.world.now + due_in),
        )
        cancel = Cancel(job_id=job.id, user_id=job.user_id)
        self.world.send(command, *([cancel] if cancels else []))
        self.waits.clear()  # it may come before others

    @rule(by=st.sampled_from([1, 3 * SECOND]), full=st.booleans())
    def promote(self, by: int, full: bool) -> None:  # noqa: FBT001
        """Time passes, and the promoter comes by. Whether keys are full it may have wrong."""
        self.world.pass_time(by)
        for job in self.world.in_phase(Phase.SCHEDULED):
            full_key = full and bool(job.concurrency_key)
            self.world.commit([make_ready(job, self.world.now, full=full_key)])
            self.watch_waits()

    @rule(data=st.data())
    def unblock(self, data: st.DataObject) -> None:
        marked = sorted(key for key, row in self.world.keys.items() if row.recheck)
        if marked:
            self.world.unblock(data.draw(st.sampled_from(marked)))

    @rule(name=st.sampled_from([*KEYS, "s3"]), most=limits, paused=seldom)
    def configure(self, name: str, most: int | None, paused: bool) -> None:  # noqa: FBT001
        self.world.configure(name, Rule(most, paused))

    @rule(name=st.sampled_from(TYPES), paused=seldom)
    def pause_type(self, name: str, paused: bool) -> None:  # noqa: FBT001
        (self.world.paused_types.add if paused else self.world.paused_types.discard)(name)

    @invariant()
    def counters_equal_a_recount(self) -> None:
        levels: dict[Any, Counters] = {}
        queues: dict[Any, Counters] = {}
        keys: dict[str, Key] = {}
        for job in self.world.jobs.values():
            if job.phase is None:
                continue
            for rows, name in ((levels, level_of(job)), (queues, queue_name(job))):
                rows.setdefault(name, Counters()).phases[job.phase] += 1
            if job.concurrency_key:
                row = keys.setdefault(job.concurrency_key, Key())
                row.running += job.phase is Phase.HELD
                row.blocked += job.phase is Phase.BLOCKED
        for counted, rows in ((levels, self.world.levels), (queues, self.world.queues)):
            assert {name: row.phases for name, row in rows.items() if any(row.phases)} == {
                name: row.phases for name, row in counted.items()
            }
        for name, row in self.world.keys.items():
            found = keys.get(name, Key())
            assert (row.running, row.blocked) == (found.running, found.blocked)
        assert keys.keys() <= self.world.keys.keys()

    @invariant()
    def a_blocked_job_with_a_free_slot_is_not_forgotten(self) -> None:
        for job in self.world.in_phase(Phase.BLOCKED):
            key = job.concurrency_key
            ready = {other.job_type for other in self.world.of_key(key, Phase.READY)}
            assert (
                not self.world.state(key).free
                or self.world.keys[key].recheck
                or job.job_type in ready
            )

    @invariant()
    def a_queue_that_was_empty_begins_no_earlier_than_its_level(self) -> None:
        for begin in self.world.begun:
            assert begin.vtime == max(begin.own, begin.level)

    @invariant()
    def a_level_is_as_far_as_the_last_turn_of_each_of_its_queues(self) -> None:
        for job in self.world.jobs.values():
            row = self.world.queues[queue_name(job)]
            assert row.vtime <= self.world.levels[level_of(job)].vtime + 1

    @invariant()
    def a_unique_key_has_one_job(self) -> None:
        keys = [
            (job.user_id, job.unique_key)
            for job in self.world.jobs.values()
            if job.unique_key and job.phase is not None
        ]
        assert len(keys) == len(set(keys))

    @invariant()
    def watch_waits(self) -> None:
        """Each tenant's turn comes: nobody waits longer than its position and the others allow."""
        ready = self.world.in_phase(Phase.READY)
        before = self.waits
        self.waits = {}
        by_queue: dict[QueueName, list[Job]] = {}
        for job in ready:
            by_queue.setdefault(queue_name(job), []).append(job)
        for queue in by_queue.values():
            for position, job in enumerate(queue, 1):
                turns = self.world.levels[level_of(job)].turns
                wait = self.waits[job.id] = before.get(job.id) or Wait(turns, position)
                new = [other for other in queue[: position - 1] if other.id not in before]
                wait.position += len(new) if job.id in before else 0
                waited = turns - wait.turns
                assert waited <= (wait.position + 1) * len(TENANTS) + MOST


TestWhoGoesNext = WhoGoesNext.TestCase
TestWhoGoesNext.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
