"""Samples a server under load with py-spy: says which functions its CPU time goes to.

Times are self times, of a function without what it calls: its share of the samples that hold the
interpreter's lock, in microseconds of the server's CPU for each piece of work. `--output FILE`
keeps the stacks, which speedscope.app and flamegraph.pl read.
"""

import argparse
import shutil
import subprocess
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from benchmarks.compare import JOBS, WORKS
from benchmarks.measure import GENERATORS, measure
from benchmarks.processes import BenchmarkError, Generator, all_do
from benchmarks.stats import aligned
from benchmarks.targets import DATABASES, PROGRAMS, Server, new_database

SAMPLES_A_SECOND = 500
SLICE_SECONDS = 0.5
FUNCTIONS = 25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    titles = [work.title for work in WORKS]
    parser.add_argument("work", choices=titles, metavar="WORK", help=", ".join(titles))
    parser.add_argument("--database", choices=DATABASES, default=DATABASES[0])
    parser.add_argument("--seconds", type=int, default=5, metavar="S", help="default: 5")
    parser.add_argument("--output", type=Path, metavar="FILE", help="keep the stacks there")


def run(arguments: argparse.Namespace) -> int:
    """Load a server, sample it, and print the tables. Raises BenchmarkError."""
    (work,) = (work for work in WORKS if work.title == arguments.work)
    done, cpu = 0, 0.0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(new_database(arguments.database, folder))
        server = stack.enter_context(Server(database))
        generators = [stack.enter_context(Generator()) for _ in range(GENERATORS)]
        all_do(generators, "calls.prepare", target=server.target, jobs=JOBS)
        measure(server, generators, work, SLICE_SECONDS)
        file = folder / "stacks"
        with _sampling(server.pid, arguments.seconds, file) as sampling:
            while sampling.poll() is None:
                usage = measure(server, generators, work, SLICE_SECONDS)
                done, cpu = done + usage.done, cpu + usage.server
            if sampling.returncode:
                raise BenchmarkError(f"py-spy failed: {sampling.communicate()[1]}")
        stacks = _read(file)
        if arguments.output:
            shutil.copy(file, arguments.output)
    cost = cpu / done * 1e6
    print(f"{work.title}, {database.name}: {done:,} in {arguments.seconds} s")
    print(f"{cost:.1f} µs of the server's CPU for each; {stacks.total():,} samples\n")
    functions = Counter[str]()
    for frames, count in stacks.items():
        functions[frames[-1]] += count
    print(table(functions, cost))
    return 0


def table(counts: Counter[str], cost: float) -> str:
    """Draw the largest of what was counted, with its part of a cost in microseconds."""
    total = counts.total()
    rows = [("µs", "", "function")]
    for name, count in counts.most_common(FUNCTIONS):
        rows.append((f"{count / total * cost:.1f}", f"{count / total:.1%}", name))
    return aligned(rows, left=(2,))


def _sampling(pid: int, seconds: int, file: Path) -> subprocess.Popen[str]:
    """Begin to sample a process."""
    command = [str(PROGRAMS / "py-spy"), "record", "--pid", str(pid), "--output", str(file)]
    command += ["--duration", str(seconds), "--rate", str(SAMPLES_A_SECOND)]
    command += ["--format", "raw", "--function", "--gil"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _read(file: Path) -> Counter[tuple[str, ...]]:
    """Return how often each stack was found: a line is its frames, with `;` between, and that."""
    stacks = Counter[tuple[str, ...]]()
    for line in file.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        stacks[tuple(frames.split(";"))] += int(count)
    return stacks
