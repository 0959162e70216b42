"""Tells where the microseconds of a call go, on every path that many calls take.

    python -m benchmarks.hot_paths [--quick] [--json FILE] [--only PATH...]

The server runs with sampling/sitecustomize.py under the same load as `make bench`, for whole
lifecycles as `make bench-lifecycle` with every update. What is the stack's own is told by the
bare server, sampled in the same way.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil  # type: ignore[import-untyped]

from benchmarks.lifecycle_rounds import WARM_UP
from benchmarks.lifecycle_runs import live_jobs
from benchmarks.messages import full_job
from benchmarks.outcome import describe_machine
from benchmarks.processes import (
    GENERATORS,
    HERE,
    BareServer,
    BenchmarkError,
    Generator,
    all_do,
    cpu_seconds,
)
from benchmarks.rates import IN_FLIGHT, JOBS
from benchmarks.stream import JOBS_EACH, STREAMS, WINDOW
from benchmarks.subjects import DATABASES, Subject, new_database, serving_on
from jobledger_server.grpc_environment import GRPC_ENVIRONMENT

PATHS = {
    "create": "CreateJob",
    "progress": "UpdateProgress",
    "report": "ReportProgress",
    "get": "GetJob",
    "watch": "WatchJob",
    "lifecycle": "a whole lifecycle",
}
CEILINGS = {"report": "bare stream", "watch": "bare stream", "lifecycle": "bare stack"}
WATCHERS = 1_000
LIFECYCLE = "lifecycle"
BARE = "the stack alone"
BARE_CALLS, BARE_LIVES = "ceiling", "bare_lives"
WARM_UP_SECONDS = 0.5
PATIENCE_SECONDS = 10.0
LIVES_A_SECOND = 200
"""As many are lived through as a slow machine does in the time that other paths are given."""
FUNCTIONS = 12
"""How many of the functions that take most are shown."""


@dataclass
class Cost:
    """What calls of one kind cost on one server, in microseconds a call."""

    loop: float = 0.0
    threads: float = 0.0
    database: float = 0.0
    rooms: dict[str, float] = field(default_factory=dict)
    functions: dict[str, float] = field(default_factory=dict)


class Sampler:
    """Switches a server's sampling on and off."""

    def __init__(self, pid: int, file: Path) -> None:
        self._process = psutil.Process(pid)
        self._file = file

    def begin(self) -> None:
        self._process.send_signal(signal.SIGUSR2)

    def end(self) -> list[tuple[str, str, float]]:
        """Return the seconds of each function with its room. Raises BenchmarkError."""
        self._process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._file.exists():
            if time.monotonic() > deadline:
                raise BenchmarkError("the server has not written its samples")
            time.sleep(0.01)
        found = json.loads(self._file.read_text())
        self._file.unlink()
        return [(room, function, seconds) for room, function, seconds in found]

    def cpu(self) -> tuple[float, float]:
        """Return the processor seconds of the event loop's thread, and of all others."""
        loop = others = 0.0
        for thread in self._process.threads():
            seconds = thread.user_time + thread.system_time
            if thread.id == self._process.pid:
                loop += seconds
            else:
                others += seconds
        return loop, others


@dataclass(frozen=True)
class Sampled:
    """A server that can be sampled."""

    name: str
    server: Subject | BareServer
    sampler: Sampler

    @property
    def target(self) -> str:
        return self.server.target

    @property
    def database_pid(self) -> int | None:
        """Its database's own process, if any."""
        return self.server.database_pid if isinstance(self.server, Subject) else None


@contextmanager
def sampled_servers(bare: str, databases: Sequence[str], folder: Path) -> Iterator[list[Sampled]]:
    """Serve the bare stack by a program, and on new databases, for as long as the block lasts."""
    with ExitStack() as stack:
        samples = folder / bare
        settings = GRPC_ENVIRONMENT if bare == BARE_LIVES else {}
        environment = {**settings, **_environment(samples)}
        server = stack.enter_context(BareServer(program=bare, environment=environment))
        servers = [Sampled(BARE, server, Sampler(server.pid, samples))]
        for name in databases:
            samples = folder / name
            database = stack.enter_context(new_database(name, folder))
            subject = stack.enter_context(serving_on(database, environment=_environment(samples)))
            servers.append(Sampled(name, subject, Sampler(subject.pid, samples)))
        yield servers


def _environment(samples: Path) -> Mapping[str, str]:
    path = os.pathsep.join([str(HERE / "sampling"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "JOBLEDGER_SAMPLES": str(samples)}


class Load(Protocol):
    """What the servers are given to do."""

    def prepare(self, server: Sampled) -> None:
        """Make what there must be."""

    def make(self, path: str, server: Sampled, seconds: float) -> int:
        """Make calls for a while; return how many were made, or deliveries that reached."""


class Calls:
    """Makes one kind of call, on any of the servers."""

    def __init__(self, generators: Sequence[Generator], caller: Generator) -> None:
        self._generators = generators
        self._caller = caller
        self._watched: dict[str, tuple[str, int]] = {}
        self._opened: list[Sampled] = []

    def prepare(self, server: Sampled) -> None:
        # The jobs that are reported on and read, and the one that is watched.
        if server.name != BARE:
            self._all("prepare", server, jobs=JOBS // len(self._generators))
            made = self._caller.do("make_job", target=server.target)
        else:
            made = {"job_id": full_job().id, "version": 1}
        self._watched[server.target] = (made["job_id"], made["version"])

    def make(self, path: str, server: Sampled, seconds: float) -> int:
        if path == "watch":
            return self._change(server, seconds)
        if path == "report":
            return self._all(
                "report",
                server,
                streams=STREAMS // len(self._generators),
                jobs=JOBS_EACH,
                window=WINDOW,
                true=server.name != BARE,
                warm_up=0.0,
                seconds=seconds,
            )
        return self._all(
            "rate",
            server,
            operation="create" if server.name == BARE else path,
            in_flight=IN_FLIGHT // len(self._generators),
            warm_up=0.0,
            seconds=seconds,
        )

    def _change(self, server: Sampled, seconds: float) -> int:
        """Change one job again and again, each time when all its watchers were told."""
        job_id, version = self._watched[server.target]
        streams = WATCHERS // len(self._generators)
        if server not in self._opened:
            self._opened.append(server)
            self._all("open", server, job_id=job_id, streams=streams)
        end = time.monotonic() + seconds
        changes = 0
        while time.monotonic() < end:
            self._all("expect", server, version=version + 1)
            self._caller.do("change", target=server.target, job_id=job_id, version=version)
            self._all("delivered", server)
            version += 1
            changes += 1
        self._watched[server.target] = (job_id, version)
        return changes * WATCHERS

    def _all(self, command: str, server: Sampled, **arguments: Any) -> int:
        replies = all_do(self._generators, command, target=server.target, **arguments)
        return sum(reply.get("calls", 0) for reply in replies)


class Lives:
    """Lives through jobs with every update, by owners and a worker who see each other by a pipe."""

    def __init__(self, owners: Generator, workers: Generator, pipe: Path) -> None:
        self._owners = owners
        self._workers = workers
        self._pipe = pipe
        os.mkfifo(pipe)

    def prepare(self, server: Sampled) -> None: ...

    def make(self, _path: str, server: Sampled, seconds: float) -> int:
        count = max(WARM_UP, int(seconds * LIVES_A_SECOND))
        live_jobs(server.server, self._owners, self._workers, lifecycles=count, pipe=self._pipe)
        return count


def sample(load: Load, path: str, server: Sampled, seconds: float) -> Cost:
    """Load the server with one kind of call, and find what each costs."""
    load.make(path, server, WARM_UP_SECONDS)
    server.sampler.begin()
    before = (*server.sampler.cpu(), _database_cpu(server))
    calls = load.make(path, server, seconds)
    after = (*server.sampler.cpu(), _database_cpu(server))
    loop, threads, database = (
        (now - then) / calls * 1e6 for now, then in zip(after, before, strict=True)
    )
    cost = Cost(loop, threads, database)
    for room, function, spent in server.sampler.end():
        cost.rooms[room] = cost.rooms.get(room, 0.0) + spent / calls * 1e6
        if function:
            cost.functions[function] = cost.functions.get(function, 0.0) + spent / calls * 1e6
    return cost


def _database_cpu(server: Sampled) -> float:
    return 0.0 if server.database_pid is None else cpu_seconds(server.database_pid)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in a minute")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the medians there too")
    parser.add_argument("--only", nargs="+", choices=PATHS, default=list(PATHS), metavar="PATH")
    arguments = parser.parse_args()
    rounds, seconds = (1, 1.5) if arguments.quick else (3, 4.0)
    found: dict[tuple[str, str], list[Cost]] = {}
    try:
        # Lifecycles on databases of their own: their worker would claim what else was created.
        calls = [path for path in arguments.only if path != LIFECYCLE]
        lives = [path for path in arguments.only if path == LIFECYCLE]
        for bare, paths in ((BARE_CALLS, calls), (BARE_LIVES, lives)):
            if paths:
                for path, server, cost in _sampled(bare, paths, rounds, seconds):
                    found.setdefault((path, server.name), []).append(cost)
    except BenchmarkError as error:
        sys.exit(f"hot paths: {error}")
    medians = {which: _median(costs) for which, costs in found.items()}
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    print(f"microseconds a call, delivery or lifecycle, medians of {rounds} rounds")
    for path in arguments.only:
        print(f"\n{_table(path, medians)}")
    if arguments.json:
        whole = [{"path": p, "server": s, **asdict(c)} for (p, s), c in medians.items()]
        arguments.json.write_text(json.dumps(whole, indent=2) + "\n")


def _sampled(
    bare: str, paths: Sequence[str], rounds: int, seconds: float
) -> Iterator[tuple[str, Sampled, Cost]]:
    with (
        tempfile.TemporaryDirectory(prefix="jobledger-bench-") as name,
        sampled_servers(bare, DATABASES, Path(name)) as servers,
    ):
        # Each path with generators of its own: a watch that is open still costs something.
        for path in paths:
            with ExitStack() as generators:
                load = _load(path, generators, Path(name))
                for server in servers:
                    load.prepare(server)
                for _ in range(rounds):
                    for server in servers:
                        yield path, server, sample(load, path, server, seconds)


def _load(path: str, stack: ExitStack, folder: Path) -> Load:
    if path == LIFECYCLE:
        owners, workers = (stack.enter_context(Generator("lifecycle_load")) for _ in range(2))
        return Lives(owners, workers, folder / "sightings")
    program = "http2_load"
    generators = [stack.enter_context(Generator(program)) for _ in range(GENERATORS)]
    return Calls(generators, stack.enter_context(Generator(program)))


def _median(costs: Sequence[Cost]) -> Cost:
    def counters(which: str) -> dict[str, float]:
        found = [getattr(cost, which) for cost in costs]
        names = {name for each in found for name in each}
        return {name: statistics.median(each.get(name, 0.0) for each in found) for name in names}

    return Cost(
        statistics.median(cost.loop for cost in costs),
        statistics.median(cost.threads for cost in costs),
        statistics.median(cost.database for cost in costs),
        counters("rooms"),
        counters("functions"),
    )


def _table(path: str, medians: Mapping[tuple[str, str], Cost]) -> str:
    """Draw what one path costs on each server: by room, by thread, and the functions in it."""
    names = [BARE, *DATABASES]
    costs = [medians[path, name] for name in names]
    lines = [PATHS[path].ljust(40) + "".join(f"{name:>16}" for name in (_bare(path), *DATABASES))]

    def add(title: str, values: Iterable[float]) -> None:
        lines.append(f"{title:40}" + "".join(f"{value:16.1f}" for value in values))

    rooms = sorted(
        {room for c in costs for room in c.rooms}, key=lambda r: -costs[1].rooms.get(r, 0.0)
    )
    for room in rooms:
        add(f"  {room}", (cost.rooms.get(room, 0.0) for cost in costs))
    add("event loop", (cost.loop for cost in costs))
    add("the server's other threads", (cost.threads for cost in costs))
    add("the database's processes", (cost.database for cost in costs))
    for name, cost in zip(DATABASES, costs[1:], strict=True):
        lines.append(f"most of it, {name}:")
        top = sorted(cost.functions.items(), key=lambda item: -item[1])[:FUNCTIONS]
        lines += [f"  {function:70}{spent:8.1f}" for function, spent in top]
    return "\n".join(lines)


def _bare(path: str) -> str:
    return CEILINGS.get(path, "no-op")


if __name__ == "__main__":
    main()
