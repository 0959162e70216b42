"""Runs the programs and commands of a page at a server of the test."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support import forked
from tests.support.pages import blocks
from tests.support.server_process import ServerProcess


def program(page: Path, words: str, server: ServerProcess) -> list[str]:
    """Return the command for the one program of a page that has these words."""
    (text,) = [block.text for block in blocks(page, "python") if words in block.text]
    return [sys.executable, "-c", text.replace("127.0.0.1:50051", server.target)]


def output(command: list[str], where: Path, answer: str = "") -> str:
    """Run what `program` returned, and return what it prints."""
    python, option, text = command
    assert (python, option) == (sys.executable, "-c")
    return _printed(forked.run("python", text, env=os.environ, cwd=where, given=answer))


def shell(text: str, server: ServerProcess, where: Path) -> str:
    """Run lines of a page at this server, and return what they print."""
    printed = ""
    for line in text.splitlines():
        expanded = subprocess.run(
            ["bash", "-euc", f"printf '%s\\0' {line}"], check=True, capture_output=True, text=True
        )
        name, *arguments = expanded.stdout.split("\0")[:-1]
        assert name == "jobledger"
        at = ("--server", server.target)
        printed += _printed(forked.run(name, *at, *arguments, env=os.environ, cwd=where))
    return printed


def _printed(run: "subprocess.CompletedProcess[str]") -> str:
    assert run.returncode == 0, run.stderr
    return run.stdout
