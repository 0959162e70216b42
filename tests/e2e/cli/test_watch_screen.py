"""What `jobledger watch JOB...` shows on a real terminal."""

import re
import sys
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
        terminal.until(lambda s: sorted(shown(s)) == sorted(ids))
        own_server.restart()
        client.update_progress(ids[0], 77)

        def connected_again(screen):
            *notes, again = screen[:-3]
            return (
                "".join(notes).startswith(f"note: lost the connection to {own_server.target} (")
                and again == f"note: connected to {own_server.target} again"
                and sorted(shown(screen[-3:])) == sorted(ids)
                and any("77 %" in line for line in screen[-3:])
            )

        terminal.until(connected_again)
