"""What a stream sends its worker of the jobs that it holds: each thing once, nothing old."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from jobledger_server.admission.endings import ShuttingDown
from jobledger_server.domain.job import Instant, Job, JobId, JobStatus, Micros
from jobledger_server.store import Change
from jobledger_server.watch.held_jobs import HeldJobs, Holders, Signal

HELD = Job(
    id=JobId("j"),
    user_id="ada",
    job_type="t",
    create_time=Instant(1),
    update_time=Instant(1),
    queue_timeout=Micros(1),
    status=JobStatus.PROCESSING,
    attempt=2,
    lease_expire_time=Instant(9),
)
CANCELLED = replace(HELD, cancel_request_time=Instant(2), cancel_reason="enough")
REQUEUED = replace(HELD, lease_expire_time=None)

ASKED = Signal(HELD.id, 2, lost=False, cancel_reason="enough")
LOST = Signal(HELD.id, 2, lost=True)


@pytest.fixture
def holders() -> Holders:
    return Holders()


@pytest.fixture
def held(holders: Holders) -> Iterator[HeldJobs]:
    with holders.opened(lambda: None) as held:
        held.add(HELD.id, 2)
        yield held
    assert not holders.of(HELD.id)


def taken(held: HeldJobs, *unless: JobId) -> list[Signal]:
    signals = []
    while (signal := held.next_signal(unless)) is not None:
        signals.append(signal)
    return signals


@pytest.mark.parametrize(
    "past",
    [
        replace(HELD, attempt=0, status=JobStatus.QUEUED, lease_expire_time=None),
        replace(HELD, attempt=1),
        replace(HELD, attempt=1, lease_expire_time=None),
        HELD,
    ],
)
def test_changes_before_the_workers_attempt_send_no_signal(held: HeldJobs, past: Job) -> None:
    assert not held.offer(Change(past, 1))
    assert taken(held) == []
    assert len(held) == 1


def test_a_cancellation_is_sent_once_and_the_job_stays_held(held: HeldJobs) -> None:
    assert held.offer(Change(CANCELLED, 1))
    assert not held.offer(Change(replace(CANCELLED, progress=1), 2))
    assert taken(held) == [ASKED]
    assert not held.observe(CANCELLED)
    assert taken(held) == []
    assert len(held) == 1


@pytest.mark.parametrize(
    "change",
    [
        Change(REQUEUED, 2),
        Change(replace(HELD, attempt=3), 2),
        Change(replace(REQUEUED, status=JobStatus.FAILED), 2),
        Change(HELD, 2, deleted=True),
    ],
)
def test_a_lost_lease_replaces_a_cancellation(
    holders: Holders, held: HeldJobs, change: Change
) -> None:
    held.offer(Change(CANCELLED, 1))
    assert held.offer(change)
    assert taken(held) == [LOST]
    assert len(held) == 0
    assert not holders.of(HELD.id)


def test_no_signal_is_sent_for_a_job_whose_finish_has_no_result_yet(held: HeldJobs) -> None:
    held.offer(Change(REQUEUED, 1))
    assert taken(held, HELD.id) == []
    held.remove(HELD.id, 2)
    assert taken(held) == []
    assert len(held) == 0


def test_the_next_attempt_of_a_lost_job_can_be_held_at_once(held: HeldJobs) -> None:
    held.offer(Change(REQUEUED, 1))
    held.add(HELD.id, 3)
    held.offer(Change(replace(CANCELLED, attempt=3), 2))
    assert taken(held) == [LOST, replace(ASKED, attempt=3)]
    assert held.attempts() == [(HELD.id, 3)]


def test_a_job_on_two_streams_is_offered_to_both(holders: Holders, held: HeldJobs) -> None:
    with holders.opened(lambda: None) as other:
        other.add(HELD.id, 2)
        for each in holders.of(HELD.id):
            each.offer(Change(REQUEUED, 1))
        assert taken(held) == taken(other) == [LOST]


def test_draining_reaches_each_stream(holders: Holders, held: HeldJobs) -> None:
    holders.end(ShuttingDown)
    assert held.ended.is_set()
    assert isinstance(held.ending, ShuttingDown)
