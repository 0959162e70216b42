"""`jobledger top`, on a terminal of many sizes and off it."""

import os
import re
import signal
import unicodedata
import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from jobledger import Client, JobError, RetryPolicy
from tests.e2e.cli.terminal import ALTERNATE, HIDE_CURSOR, ORIGINAL, SHOW_CURSOR, Terminal

WIDE = "\N{CJK UNIFIED IDEOGRAPH-6F22}"
BAR = "\N{BOX DRAWINGS HEAVY HORIZONTAL}"


def width_of(line):
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


@pytest.fixture
def on_a_terminal():
    """Start `top` with a terminal of this size."""
    terminals = []

    def on_a_terminal(jobledger, *arguments, width=120, height=20):
        jobledger.environment["TERM"] = "xterm-256color"
        for name in ("COLUMNS", "LINES"):
            jobledger.environment.pop(name, None)

        def start(**options):
            return jobledger.start("top", *arguments, **options)

        terminals.append(Terminal(start, width, height))
        return terminals[-1]

    yield on_a_terminal
    for terminal in terminals:
        terminal.close()


def rows(screen, *words):
    return [line for line in screen if all(word in line for word in words)]


def test_jobs_are_drawn_as_they_change(jobledger, client, on_a_terminal):
    waits = client.create_job("render")
    terminal = on_a_terminal(jobledger, width=160)
    terminal.until(lambda s: rows(s, waits.id, "QUEUED"))
    client.start_job(waits.id, worker_id="worker-1")
    client.update_progress(waits.id, 40, progress_message="frame [red]96\x1b[2J", attempt=1)
    terminal.until(lambda s: rows(s, waits.id, "RUNNING", "40", BAR, "worker-1"))
    # A job's text is shown as it is: neither markup nor control sequences.
    (row,) = rows(terminal.screen, waits.id)
    assert "frame [red]96" in row
    assert "\x1b[2J" not in terminal.drawn
    assert "1 running  0 queued" in terminal.screen[0]
    assert "changes/s" in terminal.screen[0]
    client.mark_failed(waits.id, "disk full", reason="NO_DISK", attempt=1)
    terminal.until(lambda s: rows(s, waits.id, "FAILED", "NO_DISK: disk full"))


def test_a_job_that_pauses_is_shown_with_the_time_and_the_error(jobledger, client, on_a_terminal):
    policy = RetryPolicy(max_attempts=2)
    job = client.start_job(client.create_job("render", retry_policy=policy).id)
    error = JobError("no answer", reason="TIMEOUT")
    paused = client.mark_failed(job.id, error, attempt=1, retryable=True, retry_delay=3600)
    until = f"until {paused.schedule_time:%Y-%m-%dT%H:%M:%SZ}"
    terminal = on_a_terminal(jobledger, width=160)
    terminal.until(lambda s: rows(s, job.id, "WAITING FOR RETRY", f"{until}  TIMEOUT: no answer"))


def test_owners_are_shown_where_there_are_several(jobledger, client, on_a_terminal):
    label = {"run": jobledger.user}
    mine = client.create_job("render", labels=label)
    theirs = client.create_job("render", labels=label, user_id="another-owner")
    other = client.create_job("bake", labels=label)
    filters = ("--all-users", "--type", "render", "--label", f"run={jobledger.user}")
    terminal = on_a_terminal(jobledger, *filters)
    terminal.until(
        lambda s: rows(s, theirs.id, "another-owner") and rows(s, mine.id, "user-"),
    )
    assert not rows(terminal.screen, other.id)
    assert rows(terminal.screen, "JOB", "OWNER")


def test_the_header_has_the_counts_of_the_service_for_who_may_read_them(
    jobledger, client, on_a_terminal
):
    kind = f"t{uuid.uuid4().hex[:12]}"
    job = client.create_job(kind)
    client.create_job(kind, schedule_time=datetime.now(UTC) + timedelta(days=1))
    terminal = on_a_terminal(jobledger, "--all-users", "--type", kind)
    terminal.until(lambda s: rows(s, "0 held  1 ready up to", "1 scheduled  0 ended/min"))
    client.start_job(job.id)
    terminal.until(lambda s: rows(s, "1 held  0 ready  1 scheduled  0 ended/min"))
    client.mark_completed(job.id, attempt=1)
    terminal.until(lambda s: rows(s, "0 held  0 ready  1 scheduled  1 ended/min"))


@pytest.mark.parametrize(("width", "height"), [(200, 50), (60, 10), (20, 3)])
def test_top_fits_any_terminal_and_counts_the_hidden_jobs(
    jobledger, client, on_a_terminal, width, height
):
    for number in range(60):
        job = client.create_job("a-type-of-job-with-a-name-as-long-as-they-get")
        if number % 2:
            client.start_job(job.id, worker_id="a-worker-with-a-long-name-indeed")
            client.update_progress(job.id, number, progress_message=WIDE * 100, attempt=1)
    terminal = on_a_terminal(jobledger, width=width, height=height)
    # The list of jobs may come in several messages, and be drawn between them. All but the header,
    # the titles of the columns and the last line are jobs.
    screen = terminal.until(lambda s: rows(s, f"and {60 - (height - 3)} more"))
    # rich leaves out the line break after the last line.
    assert len(screen) == height
    assert max(map(width_of, screen)) <= width
    # Ids can be copied wherever they fit.
    an_id = "[0-9a-f-]{36} " if width >= 60 else "\N{HORIZONTAL ELLIPSIS}[0-9a-f]{3}"
    shown = [line for line in screen if re.match(an_id, line)]
    assert len(shown) == height - 3
    assert rows(screen[-1:], "more")
    if width >= 40:
        assert len(rows(shown, "RUNNING")) == min(len(shown), 30)


def test_top_adapts_when_the_terminal_is_resized(jobledger, client, on_a_terminal):
    for _ in range(30):
        client.create_job("render")
    terminal = on_a_terminal(jobledger, width=120, height=20)
    terminal.until(lambda s: rows(s, "and 13 more"))
    for width, height, hidden in ((40, 10, 23), (150, 40, 0), (80, 24, 9)):
        terminal.resize(width, height)

        def fits(screen, width=width, height=height, hidden=hidden):
            return (
                len(screen) == height
                and max(map(width_of, screen)) <= width
                and len(rows(screen, "QUEUED")) == 30 - hidden
                and len(rows(screen, f"and {hidden} more")) == bool(hidden)
            )

        terminal.until(fits)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_terminal_is_restored(jobledger, client, on_a_terminal, number, code):
    job = client.create_job("render")
    terminal = on_a_terminal(jobledger)
    terminal.until(lambda s: rows(s, job.id))
    terminal.process.send_signal(number)
    ended, err = terminal.finish()
    assert (ended, err.strip()) == (code, "")
    drawn = terminal.drawn
    assert drawn.rindex(SHOW_CURSOR) > drawn.rindex(HIDE_CURSOR)
    assert drawn.rindex(ORIGINAL) > drawn.rindex(ALTERNATE)


def test_top_reconnects_when_the_server_is_killed_and_reports_it(shell, own_server, on_a_terminal):
    with Client(own_server.target, user_id="ada") as client:
        job = client.start_job(client.create_job("render").id)
        terminal = on_a_terminal(shell(own_server.target, "ada"))
        terminal.until(lambda s: rows(s, job.id, "RUNNING"))
        own_server.kill()
        terminal.until(lambda s: "connection lost, reconnecting" in s[0])
        own_server.start()
        client.update_progress(job.id, 77, attempt=1)
        terminal.until(lambda s: rows(s, job.id, "77") and "lost" not in s[0])


def test_top_ends_quietly_when_its_terminal_is_gone(shell, server, on_a_terminal):
    terminal = on_a_terminal(shell(server.target, "ada"))
    terminal.until(any)
    terminal.vanish()
    _, err = terminal.process.communicate(timeout=30)
    assert (terminal.process.returncode, err) == (141, "")


def test_a_wrong_address_is_reported_after_the_screen_is_restored(shell, on_a_terminal):
    terminal = on_a_terminal(shell("127.0.0.1:1", "ada"), "--timeout", "2")
    terminal.until(lambda s: rows(s, "connecting", "127.0.0.1:1"))
    code, err = terminal.finish()
    assert (code, err.count("\n")) == (6, 1)
    assert err.startswith("error: ")
    assert terminal.drawn.rindex(ORIGINAL) > terminal.drawn.rindex(ALTERNATE)


def test_after_a_gap_top_lists_the_jobs_again_and_reports_the_gap_at_exit(
    shell, fault_server, on_a_terminal
):
    expired = fault_server.rich(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
    news = fault_server.news
    fault_server.says(news("1", "first"), news("2", synced=True))
    fault_server.says(then=fault_server.refuses(expired))
    fault_server.says(news("3", "second"), news("4", synced=True), then=fault_server.falls_silent)
    terminal = on_a_terminal(shell(fault_server.target, "ada"))
    terminal.until(lambda s: rows(s, "second") and not rows(s, "first"))
    terminal.process.send_signal(signal.SIGINT)
    code, err = terminal.finish()
    assert code == 130
    assert err.startswith("note: ")
    assert "RESUME_TOKEN_EXPIRED" in err


def test_a_dumb_terminal_cannot_be_drawn_on(jobledger):
    jobledger.environment["TERM"] = "dumb"
    ours, theirs = os.openpty()
    process = jobledger.start("top", stdout=theirs)
    os.close(theirs)
    _, err = process.communicate(timeout=30)
    os.close(ours)
    assert process.returncode == 2
    assert "--once" in err


def test_once_prints_all_jobs_and_exits(jobledger, client):
    jobledger.environment["COLUMNS"] = "120"
    jobs = [client.create_job("render", labels={"a": "b"}) for _ in range(40)]
    client.start_job(jobs[-1].id)
    lines = jobledger.ok("top", "--once").splitlines()
    assert "1 running  39 queued" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == [job.id for job in [jobs[-1], *jobs[:-1]]]
    assert "\x1b" not in "".join(lines)
    assert jobledger.ok("top", "--once", "--type", "bake").splitlines()[2:] == []
