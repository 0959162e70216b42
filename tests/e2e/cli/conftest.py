"""The command line as users run it: a process of its own."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobledger import Client
from tests.support import forked
from tests.support.forked import Piped
from tests.support.server_process import ServerProcess

PROGRAM = Path(sys.executable).with_name("jobledger")


class Shell:
    """Runs `jobledger` for one user of one server."""

    def __init__(self, target: str, user: str) -> None:
        self.target = target
        self.user = user
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("JOBLEDGER_", "PYTHONUNBUFFERED"))
        }
        self.environment |= {
            "JOBLEDGER_SERVER": target,
            "JOBLEDGER_USER": user,
            "XDG_CONFIG_HOME": "/does/not/exist",
        }

    def __call__(
        self, *arguments: str, given: str = "", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return forked.run("jobledger", *arguments, env=self.environment, given=given, cwd=cwd)

    def ok(self, *arguments: str, given: str = "") -> str:
        run = self(*arguments, given=given)
        assert (run.returncode, run.stderr) == (0, "")
        return run.stdout

    def start(self, *arguments: str, **files: int) -> Piped:
        return Piped("jobledger", arguments, env=self.environment, **files)


@pytest.fixture
def user() -> str:
    """A user that no other test uses."""
    return f"user-{uuid.uuid4()}"


@pytest.fixture
def client(server: ServerProcess, user: str) -> Iterator[Client]:
    """Plays the worker, and the user of `jobledger`."""
    with Client(server.target, user_id=user) as client:
        yield client


@pytest.fixture
def jobledger(server: ServerProcess, user: str) -> Shell:
    return Shell(server.target, user)


@pytest.fixture
def shell() -> Callable[[str, str], Shell]:
    return Shell
