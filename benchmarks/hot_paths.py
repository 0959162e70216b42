"""Tells where the microseconds of a call go, on every path that many calls take.

    python benchmarks/hot_paths.py [--quick] [--json FILE] [--only PATH...]

The server runs with sampling/sitecustomize.py under the same load as `make bench`. What
is the stack's own is told by the bare server, sampled in the same way.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from bench import GENERATORS, describe_machine
from processes import HERE, BareServer, BenchmarkError, Generator, all_do, cpu_seconds
from rates import IN_FLIGHT, JOBS
from subjects import DATABASES, new_database, serving_on

PATHS = {"create": "CreateJob", "progress": "UpdateProgress", "get": "GetJob"}
BARE = "the stack alone"
WARM_UP_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
FUNCTIONS = 12
"""How many of the functions that take most are shown."""


@dataclass
class Cost:
    """What calls of one kind cost on one server, in microseconds a call."""

    loop: float = 0.0
    threads: float = 0.0
    database: float = 0.0
    rooms: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    functions: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class Sampler:
    """Switches a server's sampling on and off."""

    def __init__(self, pid: int, file: Path) -> None:
        self._process = psutil.Process(pid)
        self._file = file

    def begin(self) -> None:
        self._process.send_signal(12)

    def end(self) -> list[tuple[str, str, float]]:
        """Return the seconds of each function with its room. Raises BenchmarkError."""
        self._process.send_signal(12)
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
    """A server that can be sampled. `database_pid` is its database's own process, if any."""

    name: str
    target: str
    sampler: Sampler
    database_pid: int | None = None


@contextmanager
def sampled_servers(databases: Sequence[str], folder: Path) -> Iterator[list[Sampled]]:
    """Serve the bare stack, and on each database, for as long as the block lasts."""
    with ExitStack() as stack:
        samples = folder / "bare"
        bare = stack.enter_context(BareServer(_environment(samples)))
        servers = [Sampled(BARE, bare.target, Sampler(bare.pid, samples))]
        for name in databases:
            samples = folder / name
            database = stack.enter_context(new_database(name, folder))
            subject = stack.enter_context(serving_on(database, environment=_environment(samples)))
            sampler = Sampler(subject.pid, samples)
            servers.append(Sampled(name, subject.target, sampler, subject.database_pid))
        yield servers


def _environment(samples: Path) -> Mapping[str, str]:
    path = os.pathsep.join([str(HERE / "sampling"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "JOBLEDGER_SAMPLES": str(samples)}


def sample(
    server: Sampled, operation: str, generators: Sequence[Generator], seconds: float
) -> Cost:
    """Load the server with one kind of call, and find what each costs."""
    _load(server, operation, generators, 0.25)
    server.sampler.begin()
    before = (*server.sampler.cpu(), _database_cpu(server))
    calls = _load(server, operation, generators, seconds)
    after = (*server.sampler.cpu(), _database_cpu(server))
    loop, threads, database = (
        (now - then) / calls * 1e6 for now, then in zip(after, before, strict=True)
    )
    cost = Cost(loop, threads, database)
    for room, function, spent in server.sampler.end():
        cost.rooms[room] += spent / calls * 1e6
        if function:
            cost.functions[function] += spent / calls * 1e6
    return cost


def _load(server: Sampled, operation: str, generators: Sequence[Generator], seconds: float) -> int:
    replies = all_do(
        generators,
        "rate",
        target=server.target,
        operation=operation,
        in_flight=IN_FLIGHT // len(generators),
        warm_up=0.0,
        seconds=seconds,
    )
    return sum(reply["calls"] for reply in replies)


def _database_cpu(server: Sampled) -> float:
    return 0.0 if server.database_pid is None else cpu_seconds(server.database_pid)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--only", nargs="+", choices=PATHS, default=list(PATHS), metavar="PATH")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    arguments = parser.parse_args()
    rounds, seconds = (1, 2.0) if arguments.quick else (3, 4.0)
    costs: dict[tuple[str, str], list[Cost]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="jobledger-bench-") as folder,
        sampled_servers(arguments.databases, Path(folder)) as servers,
        ExitStack() as stack,
    ):
        generators = [stack.enter_context(Generator()) for _ in range(GENERATORS)]
        for server in servers[1:]:
            all_do(generators, "prepare", target=server.target, jobs=JOBS // len(generators))
        for _ in range(rounds):
            for path in arguments.only:
                for server in servers:
                    operation = "create" if server.name == BARE else path
                    cost = sample(server, operation, generators, seconds)
                    costs.setdefault((path, server.name), []).append(cost)
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    for (path, name), found in costs.items():
        if name != BARE:
            bare = costs[path, BARE]
            print(f"\n{PATHS[path]}, {name}: microseconds a call\n")
            print(_table(_median(found), _median(bare)))


def _median(costs: Sequence[Cost]) -> Cost:
    def counters(which: str) -> Counter[str]:
        names = {name for cost in costs for name in getattr(cost, which)}
        return Counter(
            {n: statistics.median(getattr(cost, which)[n] for cost in costs) for n in names}
        )

    return Cost(
        statistics.median(cost.loop for cost in costs),
        statistics.median(cost.threads for cost in costs),
        statistics.median(cost.database for cost in costs),
        counters("rooms"),
        counters("functions"),
    )


def _table(ours: Cost, bare: Cost) -> str:
    lines = [f"{'':44}{'ours':>8}{'no-op':>8}"]
    for room, spent in ours.rooms.most_common():
        lines.append(f"{room:44}{spent:8.1f}{bare.rooms[room]:8.1f}")
    lines.append(f"{'the event loop thread':44}{ours.loop:8.1f}{bare.loop:8.1f}")
    lines.append(f"{'other threads':44}{ours.threads:8.1f}{bare.threads:8.1f}")
    lines.append(f"{'database':44}{ours.database:8.1f}{0:8.1f}")
    lines.append("")
    lines += [f"  {name:70}{spent:8.1f}" for name, spent in ours.functions.most_common(FUNCTIONS)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
