"""A server that somebody has started on a terminal."""

import os
from pathlib import Path

from tests.support.forked import Piped

PROGRAM = """
import os, sys
from jobledger_server.__main__ import main

# The first process of a session is controlled by the first terminal that it opens.
os.setsid()
terminal = os.open(sys.argv[1], os.O_RDWR)
os.dup2(terminal, 0)
if sys.argv[2] == "terminal":
    os.dup2(terminal, 2)
os.close(terminal)
sys.argv = ["jobledger-server", *sys.argv[3:]]
main()
"""


def on_terminal(
    terminal: int, *arguments: str, log: str = "pipe", cwd: Path | None = None
) -> Piped:
    """Run `jobledger-server`; its standard error is a pipe, or the terminal, too."""
    command = [PROGRAM, os.ttyname(terminal), log, *arguments]
    return Piped("python", command, env=os.environ, cwd=cwd)
