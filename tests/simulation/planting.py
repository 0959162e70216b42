"""Plants bugs, each in a process of its own, and counts the seeds that it takes to find each.

Nothing here imports the server: a bug is planted before that is imported.
"""

import argparse
import importlib
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from tests.simulation.planted import (
    committing,
    delivering,
    grouping,
    postgresql,
    queueing,
    watching,
    working,
    writing,
)
from tests.simulation.planted.bug import Bug
from tests.simulation.planted_table import HEAD, Finding, Table

PRODUCT: Mapping[str, Bug] = {
    **watching.BUGS,
    **committing.BUGS,
    **working.BUGS,
    **writing.BUGS,
    **queueing.BUGS,
    **delivering.BUGS,
    **grouping.BUGS,
}

HISTORIES = "tests/integration/store/histories/test_equal_stores.py"
LOAD_SECONDS = 20
GAP_SEEDS = 5
"""Seeds at most of a bug with a gap: it is tried to see whether the gap is still there."""


def names() -> list[str]:
    """Return the names of all bugs."""
    wire = importlib.import_module("tests.simulation.planted.wire")
    return [*PRODUCT, *wire.BUGS, *postgresql.BUGS]


def findings(
    bugs: Sequence[str], *, first: int, seeds: int, load: float, jobs: int
) -> Iterator[Finding]:
    """Yield how each bug was found, in the order in which that is known."""
    context = multiprocessing.get_context("spawn")
    search = partial(find, first=first, seeds=seeds, load=load)
    with ProcessPoolExecutor(jobs, context, max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(search, bug) for bug in bugs]):
            yield future.result()


def find(name: str, *, first: int, seeds: int, load: float) -> Finding:
    """Plant a bug in this process, and run seeds until one finds it."""
    if name in postgresql.BUGS:
        bug = postgresql.BUGS[name]
        seeds = min(seeds, GAP_SEEDS) if bug.gap else seeds
        return _find_on_postgresql(name, bug, first=first, seeds=seeds)
    front, store, gap = None, "memory", ""
    if name in PRODUCT:
        bug = PRODUCT[name]
        bug.plant()
        what, gap = bug.what, bug.gap
        seeds = min(seeds, GAP_SEEDS) if gap else seeds
        if bug.sqlite:
            store = "sqlite"
    else:
        front = importlib.import_module("tests.simulation.planted.wire").BUGS[name]
        what = front.__doc__ or ""
    plans: Any = importlib.import_module("tests.simulation.plan")
    simulate: Any = importlib.import_module("tests.simulation.simulate").simulate
    for number in range(seeds):
        plan = plans.plan_of(first + number, store, seconds=load)
        if broken := simulate(plan, front=front).broken:
            return Finding(name, what, store, number + 1, sorted(broken))
    return Finding(name, what, store, seeds, gap=gap)


def _find_on_postgresql(name: str, bug: Bug, *, first: int, seeds: int) -> Finding:
    """Run the histories with the bug, and then the load on two servers, seed by seed."""
    with tempfile.TemporaryDirectory() as folder:
        bug.write(Path(folder))
        paths = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        run = partial(
            subprocess.run,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        done = run([sys.executable, "-m", "pytest", "-q", "-x", "-m", "not night", HISTORIES])
        if done.returncode == 1:
            return Finding(name, bug.what, "postgresql", 1, ["histories"])
        assert done.returncode == 0, done.stdout
        load = [sys.executable, "-m", "tests.checker", "--servers", "2"]
        load += ["--only", "kill -9", "--duration", str(LOAD_SECONDS)]
        for number in range(seeds):
            done = run([*load, "--seed", str(first + number)])
            if broken := {*re.findall(r"^NOT (\w+):", done.stdout, re.MULTILINE)}:
                return Finding(name, bug.what, "postgresql", number + 1, sorted(broken))
            assert "changes " in done.stdout, done.stderr
    return Finding(name, bug.what, "postgresql", seeds, gap=bug.gap)


def main() -> int:
    """Print the rows of the table; return 0 if all bugs were found that can be."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    add = parser.add_argument
    add("--planted", nargs="*", metavar="BUG", help="these; default: all that were not found yet")
    add("--seeds", type=int, default=40, metavar="N", help="at most so many a bug; default: 40")
    add("--first", type=int, default=1, metavar="N", help="the first of them; default: 1")
    add("--load", type=float, default=5.0, metavar="N", help="simulated seconds; default: 5")
    add("--jobs", type=int, default=2, metavar="N", help="processes; default: 2")
    add("--table", type=Path, metavar="FILE", help="a page with the table, to which rows are added")
    arguments = parser.parse_args()
    every = names()
    table = None if arguments.table is None else Table(arguments.table, every)
    bugs = arguments.planted or [name for name in every if table is None or name not in table.found]
    _tell(HEAD)
    missed = 0
    for finding in findings(
        bugs,
        first=arguments.first,
        seeds=arguments.seeds,
        load=arguments.load,
        jobs=arguments.jobs,
    ):
        missed += not finding.broken and not finding.gap
        _tell(finding.row())
        if table is not None:
            table.add(finding)
    _tell(f"\n{missed} of {len(bugs)} were not found")
    return 1 if missed else 0


def _tell(words: str) -> None:
    print(words, flush=True)  # noqa: T201
