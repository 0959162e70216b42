"""A server that somebody has started on a terminal."""

import json
import os
import pty

import pytest

from tests.e2e.server.on_terminal import on_terminal


@pytest.mark.parametrize("log", ["pipe", "terminal"])
def test_a_server_drains_and_ends_with_its_terminal(database_url: str, log: str) -> None:
    ours, theirs = pty.openpty()
    processes = "1" if database_url.startswith("sqlite") else "2"
    arguments = ["--listen", "127.0.0.1:0", "--database", database_url, "--processes", processes]
    process = on_terminal(theirs, "serve", *arguments, log=log)
    try:
        with os.fdopen(ours) as terminal:
            lines = process.stderr if log == "pipe" else terminal
            while json.loads(lines.readline())["event"] != "serving":
                pass
            os.close(theirs)  # not before the server has opened it
        assert process.wait(30) == 0
        if log == "pipe":
            assert "stopped" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
