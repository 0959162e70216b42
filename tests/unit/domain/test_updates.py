"""Updating: only before the start, to another queue or time, and once is as good as twice."""

from typing import Any

import pytest
from msgspec.structs import replace

from jobledger_server.domain.commands import Cancel, ChangeStatus, Update
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import Instant, Job, JobStatus, Phase
from jobledger_server.domain.queues import make_ready
from jobledger_server.domain.state_machine import Decision, version_of_start, was_just_started
from tests.unit.domain.jobs import (
    BLOCKED,
    ENDED,
    HELD,
    JOB_ID,
    LATER,
    NOW,
    OWNER,
    QUEUE_TIMEOUT,
    QUEUED,
    REQUEUED,
    SCHEDULED,
    STATES,
    State,
    ids,
    job_in,
    name_of,
    outcome_of,
)

FURTHER = Instant(LATER + 1_000_000)
PAST = Instant(1)


def update(**fields: Any) -> Update:
    return Update(job_id=JOB_ID, user_id=OWNER, **fields)


def updated(job: Job, command: Update, *, now: int = NOW, full: bool = False) -> Job:
    decision = decide(job, command, now=Instant(now), new_id=ids(), full=full)
    assert decision == Decision(job=decision.job), "nothing but the job changes"
    assert decision.job.updates == job.updates + 1
    return decision.job


@pytest.mark.parametrize("state", [QUEUED, SCHEDULED, BLOCKED])
def test_another_priority_changes_nothing_else(state: State) -> None:
    job = job_in(state)
    assert updated(job, update(priority=9)) == replace(
        job, priority=9, updates=1, update_time=NOW, version=2
    )


@pytest.mark.parametrize(
    ("state", "asked", "full", "phase"),
    [
        (QUEUED, LATER, False, Phase.SCHEDULED),
        (BLOCKED, LATER, True, Phase.SCHEDULED),
        (SCHEDULED, FURTHER, False, Phase.SCHEDULED),
        (SCHEDULED, PAST, False, Phase.READY),
        (SCHEDULED, NOW, False, Phase.READY),
        (SCHEDULED, PAST, True, Phase.BLOCKED),
    ],
)
def test_another_time_changes_the_phase_and_when_the_wait_ends(
    state: State,
    asked: Instant,
    full: bool,  # noqa: FBT001
    phase: Phase,
) -> None:
    job = job_in(state)
    time = max(asked, NOW)
    assert updated(job, update(schedule_time=asked), full=full) == replace(
        job,
        phase=phase,
        schedule_time=time,
        queue_expire_time=Instant(time + QUEUE_TIMEOUT),
        updates=1,
        update_time=NOW,
        version=2,
    )


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("version", [None, 7])
def test_a_job_that_is_so_already_stays_as_it_is(state: State, version: int | None) -> None:
    """In every state, and whatever version is expected: a call may be repeated at any time."""
    job = job_in(state)
    times = [PAST, NOW] if job.due_time <= NOW else []
    for fields in (
        {"priority": job.priority},
        *({"schedule_time": time, "priority": 5} for time in (*times, job.schedule_time) if time),
    ):
        command = update(**fields, expected_version=version)
        assert name_of(job, outcome_of(job, command)) == "repeats"


@pytest.mark.parametrize("fields", [{"priority": 9}, {"schedule_time": FURTHER}])
def test_a_job_that_was_started_is_not_updated(fields: dict[str, Any]) -> None:
    for state in (HELD, *REQUEUED):
        assert outcome_of(job_in(state), update(**fields)) == "started"
    for state in ENDED:
        assert outcome_of(job_in(state), update(**fields)) == "ended"
    job = job_in(QUEUED)
    cancelled = decide(job, Cancel(job_id=JOB_ID, user_id=OWNER), now=NOW, new_id=ids()).job
    assert outcome_of(cancelled, update(**fields)) == "ended"


def test_another_version_than_the_expected_one_and_another_owner_are_refused() -> None:
    job = job_in(QUEUED)
    assert outcome_of(job, update(priority=9, expected_version=2)) == "version"
    assert updated(job, update(priority=9, expected_version=1)).version == 2
    other = Update(job_id=JOB_ID, user_id="eve", priority=9)
    assert outcome_of(job, other) == "absent"


def test_an_updated_job_starts_and_ends_with_the_versions_that_follow() -> None:
    job = updated(updated(job_in(QUEUED), update(priority=9)), update(schedule_time=LATER))
    ready = make_ready(job, LATER).job
    start = ChangeStatus(job_id=JOB_ID, target=JobStatus.PROCESSING, worker_id="w")
    started = decide(ready, start, now=LATER, new_id=ids()).job
    assert (started.version, version_of_start(started)) == (4, 4)
    assert was_just_started(started)
    cancelled = decide(job, Cancel(job_id=JOB_ID, user_id=OWNER), now=NOW, new_id=ids())
    assert cancelled.via is not None
    assert (cancelled.via.job.version, cancelled.job.version) == (4, 5)
    assert was_just_started(cancelled.via.job)
