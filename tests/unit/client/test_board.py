"""What `jobledger top` shows, apart from the drawing."""

from datetime import UTC, datetime

import pytest

from jobledger import FeedEvent, Job, JobStatus
from jobledger.cli.board import LINGER, Board


@pytest.fixture
def board(clock):
    return Board(clock, lambda: datetime.fromtimestamp(clock.now, UTC))


def event(
    job_id,
    status="QUEUED",
    *,
    created=0,
    started=None,
    held=True,
    scheduled=None,
    priority=5,
    **fields,
):
    job = Job(
        id=job_id,
        priority=priority,
        job_type="render",
        status=JobStatus(status),
        held=held,
        create_time=datetime.fromtimestamp(created, UTC),
        start_time=None if started is None else datetime.fromtimestamp(started, UTC),
        schedule_time=None if scheduled is None else datetime.fromtimestamp(scheduled, UTC),
    )
    return FeedEvent(job=job, **fields)


SYNCED = FeedEvent(job=None, synced=True)
HEARTBEAT = FeedEvent(job=None, heartbeat=True)


def shown(board, count=100):
    return [job.id for job in board.first(count)]


def test_running_jobs_come_first_the_longest_running_at_the_top(board):
    board.take(event("waits for less", created=20))
    board.take(event("waits", created=10))
    board.take(event("runs", "PROCESSING", created=1, started=40))
    board.take(event("runs longer", "PROCESSING", created=2, started=30))
    assert shown(board) == ["runs longer", "runs", "waits", "waits for less"]
    assert shown(board, 2) == ["runs longer", "runs"]
    assert len(board) == 4


def test_jobs_of_a_higher_priority_come_first_among_those_that_wait(board):
    board.take(event("older", created=10))
    board.take(event("higher", created=20, priority=9))
    board.take(event("lower", created=1, priority=0))
    assert shown(board) == ["higher", "older", "lower"]


@pytest.mark.parametrize("status", ["COMPLETED", "PARTIAL", "FAILED"])
def test_a_finished_job_keeps_its_position_for_some_seconds(board, clock, status):
    board.take(event("b", "PROCESSING", started=2))
    board.take(event("a", "PROCESSING", started=1))
    board.take(event("a", status, started=1))
    clock.now += LINGER - 1
    board.tidy()
    assert shown(board) == ["a", "b"]
    clock.now += 1
    board.tidy()
    assert shown(board) == ["b"]


def test_a_deleted_job_disappears_at_once(board, clock):
    board.take(event("a", "FAILED"))
    board.take(event("a", "FAILED", deleted=True))
    assert shown(board) == []
    clock.now += LINGER
    board.tidy()


def test_the_deletion_of_a_job_that_is_not_shown_shows_nothing(board):
    board.take(event("a", "FAILED", deleted=True))
    assert len(board) == 0


def test_states_are_counted(board):
    board.take(event("a"))
    board.take(event("b"))
    board.take(event("b", "PROCESSING"))
    board.take(event("c", "PROCESSING", held=False))
    assert board.counts() == {"QUEUED": 1, "RUNNING": 1, "WAITING FOR RETRY": 1}


def test_a_scheduled_job_comes_last_until_it_is_due_which_no_event_says(board, clock):
    board.take(event("later", created=1, scheduled=clock.now + 20))
    board.take(event("soon", created=2, scheduled=clock.now + 10))
    board.take(event("queued", created=3))
    assert shown(board) == ["queued", "soon", "later"]
    assert board.counts() == {"SCHEDULED": 2, "QUEUED": 1}
    clock.now += 10
    board.tidy()
    assert shown(board) == ["soon", "queued", "later"]
    assert board.counts() == {"SCHEDULED": 1, "QUEUED": 2}
    clock.now += 10
    board.tidy()
    assert shown(board) == ["later", "soon", "queued"]
    assert board.counts() == {"QUEUED": 3}


def test_a_scheduled_job_that_is_cancelled_or_deleted_is_not_due_any_more(board, clock):
    for job_id in ("cancelled", "deleted"):
        board.take(event(job_id, scheduled=clock.now + 1))
    board.take(event("cancelled", "FAILED", scheduled=clock.now + 1))
    board.take(event("deleted", "FAILED", deleted=True))
    clock.now += 1
    board.tidy()
    assert (shown(board), board.counts()) == (["cancelled"], {"FAILED": 1})


def test_a_job_that_pauses_before_its_next_attempt_keeps_its_position(board, clock):
    board.take(event("a", "PROCESSING", started=1, held=False, scheduled=clock.now + 10))
    board.take(event("b", "PROCESSING", started=2))
    for _ in range(2):
        assert shown(board) == ["a", "b"]
        assert board.counts() == {"WAITING FOR RETRY": 1, "RUNNING": 1}
        clock.now += 10
        board.tidy()


def test_a_picture_compares_no_jobs_however_many_there_are(board):
    class Id(str):
        __slots__ = ()
        comparisons = 0

        def __lt__(self, other):
            Id.comparisons += 1
            return str.__lt__(self, other)

    for number in range(1000):
        board.take(event(Id(f"{number:04}")))
    Id.comparisons = 0
    assert shown(board, 3) == ["0000", "0001", "0002"]
    assert (len(board), board.counts()) == (1000, {"QUEUED": 1000})
    assert Id.comparisons == 0


def test_changes_are_counted_after_the_listing_over_ten_seconds(board, clock):
    for number in range(500):
        board.take(event(str(number)))
    assert board.rate() == 0
    board.take(SYNCED)
    for _ in range(100):
        clock.now += 0.5
        board.take(event("a"))
        board.take(HEARTBEAT)
    assert board.rate() == pytest.approx(2.0, abs=0.11)
    clock.now += 5
    assert board.rate() == pytest.approx(1.0, abs=0.11)
    clock.now += 6
    assert board.rate() == 0


def test_soon_after_the_listing_the_rate_is_that_of_the_time_since(board, clock):
    board.take(SYNCED)
    clock.now += 2
    for _ in range(10):
        board.take(event("a"))
    assert board.rate() == pytest.approx(5.0)


def test_idle_time_counts_from_the_last_event_of_any_kind(board, clock):
    assert (board.connected, board.silence()) == (False, 0)
    board.take(HEARTBEAT)
    clock.now += 30
    assert (board.connected, board.silence()) == (True, 30)
    board.take(FeedEvent(job=None, heartbeat=True, silence=31))
    assert board.silence() == 31


def test_clear_drops_everything(board, clock):
    board.take(event("a", "FAILED"))
    board.take(event("b"))
    board.take(SYNCED)
    board.clear()
    assert (shown(board), board.synced, board.rate()) == ([], False, 0)
    clock.now += LINGER
    board.tidy()
    board.take(event("c"))
    board.take(SYNCED)
    assert (shown(board), board.synced) == (["c"], True)
