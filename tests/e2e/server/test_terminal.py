"""A server that somebody has started on a terminal."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("jobledger-server"))


@pytest.mark.parametrize("log", ["pipe", "terminal"])
def test_a_server_drains_and_ends_with_its_terminal(database_url: str, log: str) -> None:
    ours, theirs = pty.openpty()
    processes = "1" if database_url.startswith("sqlite") else "2"
    arguments = ["--listen", "127.0.0.1:0", "--database", database_url, "--processes", processes]
    # The first process of a session is controlled by the first terminal that it opens.
    on_terminal = 'exec "$@" <"$0"' + (' 2>"$0"' if log == "terminal" else "")
    command = ["sh", "-c", on_terminal, os.ttyname(theirs), PROGRAM, "serve", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            with os.fdopen(ours, "rb") as terminal:
                lines = process.stderr if log == "pipe" else terminal
                while json.loads(lines.readline())["event"] != "serving":
                    pass
                os.close(theirs)  # not before the server has opened it
            assert process.wait(30) == 0
            if log == "pipe":
                assert b"stopped" in process.stderr.read()
        finally:
            process.kill()
