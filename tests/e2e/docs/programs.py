"""Runs the programs and commands of a page at a server of the test."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.pages import blocks
from tests.support.server_process import ServerProcess


def program(page: Path, words: str, server: ServerProcess) -> list[str]:
    """Return the command for the one program of a page that has these words."""
    (text,) = [block.text for block in blocks(page, "python") if words in block.text]
    return [sys.executable, "-c", text.replace("127.0.0.1:50051", server.target)]


def output(command: list[str], where: Path, answer: str = "") -> str:
    run = subprocess.run(
        command, cwd=where, input=answer, capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def shell(text: str, server: ServerProcess) -> list[str]:
    """Return the command for lines of a page, at this server."""
    binary = f"{Path(sys.executable).parent}/jobledger --server {server.target}"
    lines = re.sub(r"\bjobledger\b", binary, text)
    return ["bash", "-euo", "pipefail", "-c", lines]
