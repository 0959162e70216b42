"""What `jobledger top` shows, apart from the drawing."""

import pytest

from jobledger_client import Job, JobStatus, WatchJobsResponse
from jobledger_client._board import LINGER, Board


@pytest.fixture
def board(clock):
    return Board(clock)


def job(job_id, status="QUEUED", *, created=0, started=None, **fields):
    job = Job(id=job_id, status=JobStatus.Value(f"JOB_STATUS_{status}"))
    job.create_time.FromSeconds(created)
    if started is not None:
        job.start_time.FromSeconds(started)
    return WatchJobsResponse(job=job, **fields)


SYNCED = WatchJobsResponse(synced=True)
HEARTBEAT = WatchJobsResponse(heartbeat=True)


def shown(board, count=100):
    return [job.id for job in board.first(count)]


def test_what_runs_comes_first_the_longest_running_at_the_top_and_then_what_waits(board):
    board.take(job("waits less", created=20))
    board.take(job("waits", created=10))
    board.take(job("runs", "PROCESSING", created=1, started=40))
    board.take(job("runs longer", "PROCESSING", created=2, started=30))
    assert shown(board) == ["runs longer", "runs", "waits", "waits less"]
    assert shown(board, 2) == ["runs longer", "runs"]
    assert len(board) == 4


@pytest.mark.parametrize("status", ["COMPLETED", "PARTIAL", "FAILED"])
def test_what_ends_stays_where_it_is_for_some_seconds(board, clock, status):
    board.take(job("b", "PROCESSING", started=2))
    board.take(job("a", "PROCESSING", started=1))
    board.take(job("a", status, started=1))
    clock.now += LINGER - 1
    board.tidy()
    assert shown(board) == ["a", "b"]
    clock.now += 1
    board.tidy()
    assert shown(board) == ["b"]


def test_what_is_deleted_goes_at_once(board, clock):
    board.take(job("a", "FAILED"))
    board.take(job("a", "FAILED", deleted=True))
    assert shown(board) == []
    clock.now += LINGER
    board.tidy()


def test_the_deletion_of_a_job_that_left_long_ago_shows_nothing(board):
    board.take(job("a", "FAILED", deleted=True))
    assert len(board) == 0


def test_states_are_counted(board):
    board.take(job("a"))
    board.take(job("b"))
    board.take(job("b", "PROCESSING"))
    counts = board.counts()
    assert counts == {JobStatus.JOB_STATUS_QUEUED: 1, JobStatus.JOB_STATUS_PROCESSING: 1}


def test_changes_are_counted_after_the_listing_over_ten_seconds(board, clock):
    for number in range(500):
        board.take(job(str(number)))
    assert board.rate() == 0
    board.take(SYNCED)
    for _ in range(100):
        clock.now += 0.5
        board.take(job("a"))
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
        board.take(job("a"))
    assert board.rate() == pytest.approx(5.0)


def test_silence_is_since_the_last_message_of_any_kind(board, clock):
    assert (board.connected, board.silence()) == (False, 0)
    board.take(HEARTBEAT)
    clock.now += 30
    assert (board.connected, board.silence()) == (True, 30)


def test_beginning_anew_forgets_what_was_there(board, clock):
    board.take(job("a", "FAILED"))
    board.take(job("b"))
    board.take(SYNCED)
    board.begin_anew()
    assert (shown(board), board.synced, board.rate()) == ([], False, 0)
    clock.now += LINGER
    board.tidy()
    board.take(job("c"))
    board.take(SYNCED)
    assert (shown(board), board.synced) == (["c"], True)
