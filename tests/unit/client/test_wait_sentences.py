"""What `jobledger explain` prints, word for word."""

from datetime import UTC, datetime, timedelta

import pytest

from jobledger import (
    Explanation,
    Job,
    JobStatus,
    KeyPaused,
    LimitReached,
    NoWorker,
    Pause,
    Queued,
    Scheduled,
    TypePaused,
    WaitReason,
)
from jobledger.cli.times import clock
from jobledger.cli.wait_sentences import explanation_lines

LONG_AGO = datetime(2025, 11, 26, 12, 3, 59, tzinfo=UTC)
WAITS = Job(id="j", job_type="render")


def pause(actor="ann", reason="deploy"):
    return Pause(pause_time=LONG_AGO, actor=actor, reason=reason)


def limit(running, *holders):
    return LimitReached(
        concurrency_key="stripe", running=running, max_running=10, holder_job_ids=holders
    )


def queued(ahead=0, *, capped=False, higher=0, tenants=1):
    return Queued(ahead=ahead, capped=capped, higher_priority=higher, tenants=tenants)


@pytest.mark.parametrize(
    ("reason", "lines"),
    [
        (NoWorker(job_type="render"), ["no worker asks for jobs of type render"]),
        (
            TypePaused(job_type="render", pause=pause()),
            ["type render is paused since 2025-11-26 12:03 by ann: deploy"],
        ),
        (
            TypePaused(job_type="render", pause=pause(actor="")),
            ["type render is paused since 2025-11-26 12:03: deploy"],
        ),
        (
            KeyPaused(concurrency_key="stripe", pause=pause(reason="")),
            ["key stripe is paused since 2025-11-26 12:03 by ann"],
        ),
        (limit(2, "a", "b"), ["limit stripe: 2 of 10 held, by these jobs", "  a", "  b"]),
        (
            limit(12, "a", "b"),
            ["limit stripe: 12 of 10 held, by these jobs and 10 more", "  a", "  b"],
        ),
        (limit(10), ["limit stripe: 10 of 10 held"]),
        (Scheduled(schedule_time=LONG_AGO), ["scheduled for 2025-11-26T12:03:59Z"]),
        (
            queued(17, tenants=3),
            ["17 jobs of its tenant go before it; 3 tenants take turns"],
        ),
        (queued(1), ["1 job of its tenant goes before it"]),
        (
            queued(1000, capped=True, tenants=1000),
            ["more than 1000 jobs of its tenant go before it; at least 1000 tenants take turns"],
        ),
        (
            queued(higher=4),
            ["4 jobs with a higher priority go first; no job of its tenant goes before it"],
        ),
        (
            WaitReason(),
            ["it waits for a reason that this version of jobledger does not know"],
        ),
        (
            NoWorker(job_type="a\x1b[2J"),
            ["no worker asks for jobs of type a\N{REPLACEMENT CHARACTER}[2J"],
        ),
    ],
)
def test_each_reason_is_a_sentence(reason, lines):
    assert list(explanation_lines(Explanation(WAITS, (reason,)))) == lines


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (JobStatus.PROCESSING, "it does not wait: a worker holds it"),
        (JobStatus.FAILED, "it does not wait: it is FAILED"),
    ],
)
def test_a_job_that_does_not_wait_is_said_not_to(status, line):
    job = Job(id="j", job_type="render", status=status, held=not status.is_terminal)
    assert list(explanation_lines(Explanation(job, ()))) == [line]


def test_a_time_of_today_goes_without_its_date():
    now = LONG_AGO + timedelta(minutes=5)
    assert clock(LONG_AGO, now) == "12:03"
    assert clock(LONG_AGO, now + timedelta(days=1)) == "2025-11-26 12:03"
