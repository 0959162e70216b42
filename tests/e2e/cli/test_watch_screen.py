"""What `jobledger watch JOB...` shows on a real terminal."""

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobledger import Client
from tests.e2e.cli.tmux import Tmux

PROGRAM = str(Path(sys.executable).with_name("jobledger"))
ID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
LONG = "a description that is longer than what is left of a line of this terminal"


@pytest.fixture
def on_a_terminal():
    """Start `watch` on a terminal of this size."""
    terminals = []

    def on_a_terminal(shell, *ids, width=100, height=16):
        environment = {
            name: value
            for name, value in shell.environment.items()
            if name not in {"COLUMNS", "LINES"}
        }
        terminals.append(Tmux([PROGRAM, "watch", *ids], environment, width, height))
        return terminals[-1]

    yield on_a_terminal
    for terminal in terminals:
        terminal.close()


def running(client, count=3):
    """Start jobs; return their ids."""
    return [client.start_job(client.create_job("render").id).id for _ in range(count)]


def shown(lines):
    """Return the ids of the jobs that have bars, in the order of the bars."""
    return [match[0] for line in lines if (match := re.match(ID, line))]


def test_a_note_stands_above_the_bars(shell, own_server, on_a_terminal):
    with Client(own_server.target, user_id="ada") as client:
        ids = running(client)
        terminal = on_a_terminal(shell(own_server.target, "ada"), *ids)
        terminal.until(lambda s: shown(s) == ids)
        own_server.restart()
        client.update_progress(ids[0], 77, attempt=1)

        def connected_again(screen):
            notes, bars = screen[:-3], screen[-3:]
            return (
                "".join(notes[:-1]).startswith(
                    f"note: lost the connection to {own_server.target} ("
                )
                and notes[-1] == f"note: connected to {own_server.target} again"
                and shown(bars) == ids
                and any("77 %" in line for line in bars)
            )

        terminal.until(connected_again)


def test_another_size_of_the_terminal_leaves_nothing_of_the_old_picture(
    jobledger, client, on_a_terminal
):
    ids = running(client, 10)
    for job_id in ids:
        client.update_progress(job_id, 40, progress_message=LONG, attempt=1)
    terminal = on_a_terminal(jobledger, *ids, width=130, height=30)
    terminal.until(lambda s: shown(s) == ids)
    for width, height in ((70, 30), (100, 12), (50, 12), (130, 30)):
        terminal.resize(width, height)
        # Whole ids and all of the status fit, or the end of an id does.
        row = rf"{ID} \S{{10}}" if width >= 60 else r"\N{HORIZONTAL ELLIPSIS}\w{12}"

        def fits(screen, row=row):
            return len(screen) == len(ids) and all(
                re.match(rf"{row}  40 % RUNNING +a de", line) for line in screen
            )

        terminal.until(fits)


def test_a_terminal_that_is_too_low_counts_the_jobs_that_it_does_not_show(
    jobledger, client, on_a_terminal
):
    ids = running(client, 8)
    terminal = on_a_terminal(jobledger, *ids, height=6)
    terminal.until(lambda s: len(shown(s)) == 4 and s[4] == "and 4 more")
    terminal.resize(100, 4)
    terminal.until(lambda s: len(shown(s)) == 2 and s[2] == "and 6 more")
    terminal.press("C-c")
    # At the end all are printed.
    terminal.until(lambda s: s[-1] == "[exit code 130]")
    assert shown(terminal.history[-9:-1]) == ids


def test_a_scheduled_job_is_shown_with_its_time_and_is_queued_from_then_on(
    server, shell, client, user, on_a_terminal
):
    now = datetime.now(UTC)
    times = [now + timedelta(hours=1), now + timedelta(seconds=2)]
    ids = [client.create_job("render", schedule_time=time).id for time in times]
    terminal = on_a_terminal(shell(server.target, user), *ids, width=120)
    scheduled = f" SCHEDULED  until {times[0]:%Y-%m-%dT%H:%M:%SZ}"
    # No event tells it.
    screen = terminal.until(lambda s: s[-1].endswith(" QUEUED"))
    assert shown(screen) == ids
    assert screen[0].endswith(scheduled)
