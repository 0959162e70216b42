"""A slot: the newest snapshot, and every transition until it is update."""

import asyncio

import pytest
from msgspec.structs import replace

from jobledger_server.admission.endings import ShuttingDown
from jobledger_server.domain.errors import JobNotFound
from jobledger_server.domain.job import Instant, Job, JobId, JobStatus, Micros, Transition
from jobledger_server.store import Change
from jobledger_server.watch.job_watch import JobUpdate, JobWatch

JOB = Job(
    id=JobId("j"),
    user_id="ada",
    job_type="t",
    create_time=Instant(1),
    update_time=Instant(1),
    queue_timeout=Micros(1),
)
TERMINAL = (JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED)
NOW = 0.001
"""As little max_wait as there is: what is not there yet is not update."""


def step(version: int, to: JobStatus = JobStatus.PROCESSING) -> Transition:
    before = JobStatus.PROCESSING if to in TERMINAL else JobStatus.QUEUED
    return Transition(
        job_id=JOB.id,
        from_status=before,
        to_status=to,
        version=version,
        attempt=1,
        actor="w",
        reason="",
        time=Instant(version),
    )


def change(version: int, *steps: Transition, status: JobStatus = JobStatus.PROCESSING) -> Change:
    return Change(replace(JOB, version=version, status=status), version, steps)


async def test_a_change_newer_than_the_read_is_an_update_even_if_it_came_first() -> None:
    slot = JobWatch(JOB.id)
    slot.offer(change(2, step(2)))
    slot.offer(change(3))
    slot.sent_up_to(1)
    assert await slot.next_update(NOW) == JobUpdate(change(3).job, (step(2),))


async def test_a_change_that_the_read_has_seen_is_no_update() -> None:
    slot = JobWatch(JOB.id)
    slot.offer(change(2, step(2)))
    slot.offer(change(3))
    slot.sent_up_to(3)
    assert await slot.next_update(NOW) is None


async def test_a_change_that_comes_after_a_newer_read_is_no_update() -> None:
    slot = JobWatch(JOB.id)
    slot.sent_up_to(3)
    slot.offer(change(2, step(2)))
    assert await slot.next_update(NOW) is None


async def test_only_transitions_after_the_read_are_in_the_update() -> None:
    slot = JobWatch(JOB.id)
    slot.offer(change(2, step(2)))
    slot.offer(change(3, step(3, JobStatus.FAILED), status=JobStatus.FAILED))
    slot.sent_up_to(2)
    update = await slot.next_update(NOW)
    assert update is not None
    assert update.transitions == (step(3, JobStatus.FAILED),)


async def test_progress_conflates_and_transitions_do_not() -> None:
    slot = JobWatch(JOB.id)
    slot.sent_up_to(1)
    slot.offer(change(2, step(2)))
    for version in range(3, 1000):
        slot.offer(change(version))
    end = step(1000, JobStatus.PARTIAL)
    slot.offer(change(1000, end, status=JobStatus.PARTIAL))
    update = await slot.next_update(NOW)
    assert update is not None
    assert (update.job.version, update.transitions, update.last) == (1000, (step(2), end), True)


async def test_a_change_offered_twice_is_delivered_once() -> None:
    slot = JobWatch(JOB.id)
    slot.sent_up_to(1)
    slot.offer(change(2, step(2)))
    assert await slot.next_update(NOW) == JobUpdate(change(2).job, (step(2),))
    slot.offer(change(2, step(2)))
    assert await slot.next_update(NOW) is None
    slot.offer(change(3, step(2)))  # as the feed gives it: with every step since the cursor read
    assert await slot.next_update(NOW) == JobUpdate(change(3).job, ())


async def test_an_offered_change_wakes_the_waiting_watch() -> None:
    slot = JobWatch(JOB.id)
    slot.sent_up_to(1)
    waiting = asyncio.create_task(slot.next_update(60))
    await asyncio.sleep(0)
    slot.offer(change(2, step(2)))
    slot.wake()
    assert await waiting == JobUpdate(change(2).job, (step(2),))


async def test_a_known_terminal_state_is_delivered_before_the_not_found_of_a_deletion() -> None:
    slot = JobWatch(JOB.id)
    slot.sent_up_to(1)
    end = change(3, step(3, JobStatus.COMPLETED), status=JobStatus.COMPLETED)
    slot.offer(end)
    slot.offer(Change(replace(JOB, version=4), 4, deleted=True))
    assert await slot.next_update(NOW) == JobUpdate(end.job, end.transitions)
    with pytest.raises(JobNotFound):
        await slot.next_update(NOW)


async def test_a_draining_watch_still_delivers_a_known_terminal_state() -> None:
    slot = JobWatch(JOB.id)
    slot.sent_up_to(1)
    slot.offer(change(2, step(2)))
    slot.end(ShuttingDown())
    with pytest.raises(ShuttingDown):
        await slot.next_update(NOW)
    end = change(3, step(3, JobStatus.COMPLETED), status=JobStatus.COMPLETED)
    slot.offer(end)
    update = await slot.next_update(NOW)
    assert update is not None
    assert update.transitions == (step(2), step(3, JobStatus.COMPLETED))
