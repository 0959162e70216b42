"""What is measured: the servers of each peer and the programs of its clients."""

import json
import shutil
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import postgres
from benchmarks.load import PARAMETERS, PERCENTS
from benchmarks.peers import IN_FLIGHT_VARIABLE
from benchmarks.processes import ROOT, BenchmarkError, free_port, running
from benchmarks.targets import Server, new_database

HERE = Path(__file__).parent
ENVIRONMENT = ROOT / ".venv" / "peers"


@dataclass(frozen=True)
class Subject:
    """Servers that run, and the commands of their clients.

    Attributes:
        server: process id of the server.
        database: process id of its database, where that is a process apart.
        owners: a program that creates jobs and observes them; see `answer`.
        worker: a program that works until it is killed.
    """

    server: int
    database: int | None
    owners: Sequence[str]
    worker: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def bullmq(database: str, folder: Path, in_flight: int) -> Iterator[Subject]:
    """Serve BullMQ on Redis or on PostgreSQL, with QueueEvents as the observer."""
    node = _find("node", "nodejs and npm")
    program = HERE / "bullmq" / "lifecycle.mjs"
    lock = program.with_name("package-lock.json")
    _install(lock, program.with_name("node_modules"), [_find("npm", "npm"), "ci", "--silent"])
    lifecycle = {"inFlight": in_flight, "percents": PERCENTS, "parameters": PARAMETERS}
    with _redis(folder) if database == "Redis" else _postgresql() as (pid, url):
        owners, worker = (
            [node, str(program), role, url, json.dumps(lifecycle)] for role in ("owners", "worker")
        )
        yield Subject(pid, None, owners, worker)


@contextmanager
def celery(folder: Path, in_flight: int) -> Iterator[Subject]:
    """Serve Celery on Redis, with `AsyncResult.get(on_message=…)` as the observer."""
    python = _peers_python()
    tasks = "benchmarks.peers.celery_tasks"
    worker = ["-A", tasks, "worker", "--loglevel", "ERROR"]
    worker += ["--pool", "threads", "--concurrency", str(in_flight)]
    with _redis(folder) as (pid, url):
        yield Subject(
            pid,
            None,
            owners=[python, "-m", tasks],
            worker=[python, "-m", "celery", *worker],
            environment={"PEERS_REDIS": url, **_in_flight(in_flight)},
        )


@contextmanager
def fastapi(folder: Path, in_flight: int) -> Iterator[Subject]:
    """Serve a hand-made service of FastAPI and SQLAlchemy on PostgreSQL, polled by its observer."""
    python = _peers_python()
    with postgres.cluster() as cluster:
        url = cluster.create_database()
        port = free_port()
        command = [python, "-m", "uvicorn", "benchmarks.peers.fastapi_service:app"]
        command += ["--port", str(port), "--no-access-log", "--timeout-keep-alive", "60"]
        environment = {"PEERS_POSTGRES": url.replace("postgresql", "postgresql+asyncpg", 1)}
        target = f"http://127.0.0.1:{port}"
        log = folder / "server.log"
        with running(command, log, partial(_answers, target), environment) as pid:
            clients = [python, "-m", "benchmarks.peers.fastapi_clients"]
            owners, worker = ([*clients, role, target] for role in ("owners", "worker"))
            yield Subject(pid, cluster.pid, owners, worker, _in_flight(in_flight))


@contextmanager
def jobledger(database: str, folder: Path, in_flight: int) -> Iterator[Subject]:
    """Serve Jobledger, with one watch of all jobs as their observer."""
    clients = [sys.executable, "-m", "benchmarks.peers.jobledger_clients"]
    with new_database(database, folder) as made, Server(made) as server:
        owners, worker = ([*clients, role, server.target] for role in ("owners", "worker"))
        yield Subject(server.pid, made.pid, owners, worker, _in_flight(in_flight))


SUBJECTS: Mapping[str, Callable[[Path, int], AbstractContextManager[Subject]]] = {
    "bullmq-redis": partial(bullmq, "Redis"),
    "bullmq-postgresql": partial(bullmq, "PostgreSQL"),
    "celery": celery,
    "fastapi": fastapi,
    "jobledger-sqlite": partial(jobledger, "SQLite"),
    "jobledger-postgresql": partial(jobledger, "PostgreSQL"),
}


def _in_flight(jobs: int) -> Mapping[str, str]:
    return {IN_FLIGHT_VARIABLE: str(jobs)}


@contextmanager
def _redis(folder: Path) -> Iterator[tuple[int, str]]:
    """Run a Redis that has each write on the disk before it answers; yield its pid and URL."""
    port = str(free_port())
    command = [_find("redis-server", "redis-server"), "--port", port, "--dir", str(folder)]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    client = [_find("redis-cli", "redis-tools"), "-p", port]

    def serves() -> bool:
        query = [*client, "CONFIG", "GET", "appendfsync"]
        return subprocess.run(query, check=False, capture_output=True).stdout.endswith(b"always\n")

    with running(command, folder / "server.log", serves) as pid:
        yield pid, f"redis://127.0.0.1:{port}/0"


@contextmanager
def _postgresql() -> Iterator[tuple[int, str]]:
    """Run a PostgreSQL with an empty database; yield its pid and the database's URL."""
    with postgres.cluster() as cluster:
        yield cluster.pid, cluster.create_database()


def _answers(target: str) -> bool:
    try:
        urllib.request.urlopen(f"{target}/openapi.json", timeout=5).close()
    except OSError:  # refused, reset, or too late
        return False
    return True


def _peers_python() -> str:
    """Return the interpreter of the peers' own environment, which is made where it is missing."""
    python = str(ENVIRONMENT / "bin" / "python")
    if not ENVIRONMENT.exists():
        venv.create(ENVIRONMENT)
    lock = HERE / "requirements.lock"
    uv = str(ROOT / ".venv" / "uv" / "bin" / "uv")
    _install(lock, ENVIRONMENT, [uv, "pip", "sync", "--quiet", "--python", python, str(lock)])
    return python


def _install(lock: Path, folder: Path, command: Sequence[str]) -> None:
    """Install what a lock file names, unless that is done already."""
    installed = folder / ".installed"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        print(f"installing what {lock.relative_to(ROOT)} names", file=sys.stderr)
        if subprocess.run(command, cwd=lock.parent, check=False).returncode:
            raise BenchmarkError(f"{' '.join(command)} failed")
        installed.write_bytes(lock.read_bytes())


def _find(program: str, packages: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise BenchmarkError(f"{program} is missing: on Debian, `apt-get install {packages}`")
    return found
