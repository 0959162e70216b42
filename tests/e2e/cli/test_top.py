"""`jobledger top`, on a terminal of many sizes and off it."""

import os
import re
import signal
import unicodedata

import grpc
import pytest

from jobledger_client import Client, JobStatus
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


def test_jobs_are_drawn_as_they_go_and_leave_after_their_end(jobledger, client, on_a_terminal):
    waits = client.create_job("render")
    terminal = on_a_terminal(jobledger)
    terminal.until(lambda s: rows(s, waits.id[-12:], "QUEUED"))
    client.start_job(waits.id, worker_id="worker-1")
    client.update_progress(waits.id, 40, progress_message="frame [red]96\x1b[2J")
    terminal.until(lambda s: rows(s, waits.id[-12:], "PROCESSING", "40", BAR, "worker-1"))
    # A job's words are shown as they are: neither markup nor control sequences.
    (row,) = rows(terminal.screen, waits.id[-12:])
    assert "frame [red]96" in row
    assert "\x1b[2J" not in terminal.drawn
    assert "1 processing  0 queued" in terminal.screen[0]
    assert "changes/s" in terminal.screen[0]
    client.mark_failed(waits.id, "disk full", reason="NO_DISK")
    terminal.until(lambda s: rows(s, waits.id[-12:], "FAILED", "NO_DISK: disk full"))
    terminal.until(lambda s: not rows(s, waits.id[-12:]))


def test_a_job_that_is_asked_to_end_is_cancelling(jobledger, client, on_a_terminal):
    job = client.start_job(client.create_job("render").id)
    terminal = on_a_terminal(jobledger)
    client.cancel_job(job.id)
    terminal.until(lambda s: rows(s, job.id[-12:], "CANCELLING"))


def test_owners_are_shown_where_there_are_several(jobledger, client, on_a_terminal):
    label = {"run": jobledger.user}
    mine = client.create_job("render", labels=label)
    theirs = client.create_job("render", labels=label, user_id="another-owner")
    other = client.create_job("bake", labels=label)
    filters = ("--all-users", "--type", "render", "--label", f"run={jobledger.user}")
    terminal = on_a_terminal(jobledger, *filters)
    terminal.until(lambda s: rows(s, theirs.id[-12:], "another-owner"))
    assert rows(terminal.screen, mine.id[-12:], "user-")
    assert not rows(terminal.screen, other.id[-12:])
    assert rows(terminal.screen, "JOB", "OWNER")


@pytest.mark.parametrize(
    ("width", "height"), [(200, 50), (120, 20), (80, 24), (60, 10), (40, 6), (30, 4), (20, 3)]
)
def test_it_fits_any_terminal_and_says_how_many_more_there_are(
    jobledger, client, on_a_terminal, width, height
):
    for number in range(60):
        job = client.create_job("a-type-of-job-with-a-name-as-long-as-they-get")
        if number % 2:
            client.start_job(job.id, worker_id="a-worker-with-a-long-name-indeed")
            client.update_progress(job.id, number, progress_message=WIDE * 100)
    terminal = on_a_terminal(jobledger, width=width, height=height)
    screen = terminal.until(lambda s: rows(s, "more"))
    # rich leaves out the line break after the last line.
    assert len(screen) == height
    assert max(map(width_of, screen)) <= width
    # All but the header, the heads of the columns and the last line.
    shown = [line for line in screen if re.match("\N{HORIZONTAL ELLIPSIS}[0-9a-f]{3}", line)]
    assert len(shown) == height - 3
    assert f"and {60 - len(shown)} more" in screen[-1]
    if width >= 40:
        assert len(rows(shown, "PROCESSING")) == min(len(shown), 30)


def test_it_follows_a_terminal_that_changes_its_size(jobledger, client, on_a_terminal):
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
def test_the_terminal_is_given_back_as_it_was(jobledger, client, on_a_terminal, number, code):
    job = client.create_job("render")
    terminal = on_a_terminal(jobledger)
    terminal.until(lambda s: rows(s, job.id[-12:]))
    terminal.process.send_signal(number)
    ended, err = terminal.finish()
    assert (ended, err.strip()) == (code, "")
    drawn = terminal.drawn
    assert drawn.rindex(SHOW_CURSOR) > drawn.rindex(HIDE_CURSOR)
    assert drawn.rindex(ORIGINAL) > drawn.rindex(ALTERNATE)


def test_it_goes_on_through_the_death_of_the_server(shell, own_server, on_a_terminal):
    with Client(own_server.target, user_id="ada") as client:
        job = client.start_job(client.create_job("render").id)
        terminal = on_a_terminal(shell(own_server.target, "ada"))
        terminal.until(lambda s: rows(s, job.id[-12:], "PROCESSING"))
        own_server.restart()
        client.update_progress(job.id, 77)
        terminal.until(lambda s: rows(s, job.id[-12:], "77"))


def test_a_wrong_address_is_told_after_the_screen_is_given_back(shell, on_a_terminal):
    terminal = on_a_terminal(shell("127.0.0.1:1", "ada"))
    terminal.until(lambda s: rows(s, "connecting", "127.0.0.1:1"))
    code, err = terminal.finish()
    assert (code, err.count("\n")) == (6, 1)
    assert err.startswith("error: ")
    assert terminal.drawn.rindex(ORIGINAL) > terminal.drawn.rindex(ALTERNATE)


def test_a_gap_is_drawn_anew_and_told_at_the_end(shell, fault_server, on_a_terminal):
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


def test_a_dumb_terminal_cannot_be_drawn_on(jobledger, on_a_terminal):
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
    assert "1 processing  39 queued" in lines[0]
    assert [line.split()[0][1:] for line in lines[2:]] == [
        job.id[-12:] for job in [jobs[-1], *jobs[:-1]]
    ]
    assert "\x1b" not in "".join(lines)
    assert jobledger.ok("top", "--once", "--type", "bake").splitlines()[2:] == []


def test_once_for_a_reader_that_was_never_there_ends_quietly(jobledger):
    theirs, ours = os.pipe()
    os.close(theirs)
    process = jobledger.start("top", "--once", stdout=ours)
    os.close(ours)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (141, "")


def test_every_state_has_a_colour():
    from jobledger_client._top import _STYLES

    assert set(_STYLES) == {status for status in JobStatus.values() if status}
