"""Runs the programs and commands of a page at a server of the test."""

import os
import re
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


def shell(text: str, target: str, where: Path, variables: dict[str, str] | None = None) -> str:
    """Run commands of a page at this server, and return what they print.

    Args:
        text: In each line one of our commands, or `NAME=$(command)`.
        target: The server's address.
        where: The folder.
        variables: Those of the shell. `NAME=$(command)` adds one.
    """
    variables, printed = {} if variables is None else variables, ""
    environment = {**os.environ, "JOBLEDGER_SERVER": target}
    for line in text.splitlines():
        assigned = re.fullmatch(r"(\w+)=\$\((.*)\)", line)
        command = assigned[2] if assigned else line
        words = subprocess.run(
            ["bash", "-euc", f"printf '%s\\0' {command}"],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
        )
        program, *arguments = words.stdout.split("\0")[:-1]
        output = _printed(forked.run(Path(program).name, *arguments, env=environment, cwd=where))
        if assigned:
            variables[assigned[1]] = output.rstrip()
        else:
            printed += output
    return printed


def _printed(run: "subprocess.CompletedProcess[str]") -> str:
    assert run.returncode == 0, run.stderr
    return run.stdout
