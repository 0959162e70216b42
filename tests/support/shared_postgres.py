"""One PostgreSQL cluster for all processes of a test run.

The first process that needs the cluster starts it, in a process of its own: the keeper. Every
process that uses the cluster holds a shared lock on a file. The keeper waits for the exclusive
lock and closes the cluster when it has it, so the cluster ends with its last user, however that
user ended.

The cluster does not wait for the disk. A test about durability, and one that stops or freezes
PostgreSQL, makes a `PostgresServer` of its own.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.support.postgres_server import PostgresServer, find_binaries

ROOT = Path(__file__).parents[2]
DONE = "done"


class Administrator:
    """A kept connection to a cluster, which makes and drops databases."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._psql = subprocess.Popen(
            [
                *(str(find_binaries() / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "u"),
                *("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "postgres"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def create(self, template: str) -> str:
        """Make a copy of a database and return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        # Copying files costs half of what writing every page to the log costs.
        self._run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return f"postgresql://u@127.0.0.1:{self._port}/{name}"

    def drop(self, url: str) -> None:
        """Drop a database, and end all connections to it."""
        self._run(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def close(self) -> None:
        self._psql.communicate()

    def _run(self, command: str) -> None:
        assert self._psql.stdin is not None
        assert self._psql.stdout is not None
        self._psql.stdin.write(f"{command};\n\\echo {DONE}\n")
        self._psql.stdin.flush()
        answer = self._psql.stdout.readline()
        if answer.strip() != DONE:
            raise RuntimeError(f"{command}: {answer}{self._psql.stdout.read()}")


class Databases:
    """Databases in a shared cluster, dropped at the end of the block."""

    def __init__(self, administrator: Administrator) -> None:
        self._administrator = administrator
        self._made: list[str] = []

    def create_database(self, template: str = "template0") -> str:
        """Make a database, a copy of another one or an empty one, and return its URL."""
        url = self._administrator.create(template)
        self._made.append(url)
        return url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for url in self._made:
            self._administrator.drop(url)


@contextlib.contextmanager
def shared_postgres(folder: Path) -> Iterator[Administrator]:
    """Use the cluster of all processes that share a folder; start it if it does not run."""
    with (folder / "postgres.users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for a keeper that is closing the last cluster
        port = folder / "postgres.port"
        with (folder / "postgres.start").open("w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            if not port.exists():
                port.write_text(_started(folder))
        administrator = Administrator(int(port.read_text()))
        yield administrator
        administrator.close()


def _started(folder: Path) -> str:
    """Start a keeper, which outlives this process, and return the port of its cluster."""
    keeper = [sys.executable, "-m", __name__, str(folder)]
    started = subprocess.run(
        ["sh", "-c", '"$@" &', "sh", *keeper],
        check=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    if not started.stdout:
        raise RuntimeError("no PostgreSQL: see the keeper's error above")
    return started.stdout


def _keep(folder: Path) -> None:
    server = PostgresServer(durable=False)
    print(server.port, flush=True)  # noqa: T201
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())  # who started this waits for its end
    with (folder / "postgres.users").open("r") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        (folder / "postgres.port").unlink()
        server.close()


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
