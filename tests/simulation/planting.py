"""Plants bugs, each in a process of its own, and counts the seeds that it takes to find each.

Nothing here imports the server: a bug is planted before that is imported.
"""

import argparse
import importlib
import itertools
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

from tests.simulation.planted import committing, watching, working
from tests.simulation.planted.bug import Bug

PRODUCT: Mapping[str, Bug] = {**watching.BUGS, **committing.BUGS, **working.BUGS}

HEAD = "| bug | what is wrong | found by | seeds | CPU |\n| --- | --- | --- | --- | --- |"


class Finding(NamedTuple):
    """How a bug was found.

    Attributes:
        bug: Its name.
        what: What is wrong.
        seeds: How many were run, the last of which found it.
        broken: What that seed found broken; empty if none has found the bug.
        cpu: Seconds of CPU.
    """

    bug: str
    what: str
    seeds: int
    broken: Sequence[str]
    cpu: float

    def row(self) -> str:
        """Return the row of the table."""
        seeds = str(self.seeds) if self.broken else f"not in {self.seeds}"
        found = ", ".join(self.broken)
        return f"| {self.bug} | {self.what} | {found} | {seeds} | {self.cpu:.0f} s |"


def names() -> list[str]:
    """Return the names of all bugs."""
    wire = importlib.import_module("tests.simulation.planted.wire")
    return [*PRODUCT, *wire.BUGS]


def findings(
    bugs: Sequence[str], *, first: int, seeds: int, stores: Sequence[str], load: float, jobs: int
) -> Iterator[Finding]:
    """Yield how each bug was found."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, max_tasks_per_child=1) as pool:
        for future in [pool.submit(find, bug, first, seeds, stores, load) for bug in bugs]:
            yield future.result()


def find(name: str, first: int, seeds: int, stores: Sequence[str], load: float) -> Finding:
    """Plant a bug in this process, and run seeds until one finds it."""
    front, what = None, ""
    if name in PRODUCT:
        bug = PRODUCT[name]
        bug.plant()
        what = bug.what
        if bug.sqlite:
            stores = ("sqlite",)
    else:
        front = importlib.import_module("tests.simulation.planted.wire").BUGS[name]
        what = front.__doc__
    plans: Any = importlib.import_module("tests.simulation.plan")
    simulate: Any = importlib.import_module("tests.simulation.simulate").simulate
    store = itertools.cycle(stores)
    cpu = 0.0
    for number in range(seeds):
        result = simulate(plans.plan_of(first + number, next(store), seconds=load), front=front)
        cpu += result.cpu
        if result.broken:
            return Finding(name, what, number + 1, sorted(result.broken), cpu)
    return Finding(name, what, seeds, (), cpu)


def main() -> int:
    """Print the table; return 0 if all bugs were found."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    add = parser.add_argument
    add("--planted", nargs="*", metavar="BUG", help="these bugs; default: all")
    add("--seeds", type=int, default=1000, metavar="N", help="at most so many for each bug")
    add("--first", type=int, default=1, metavar="N", help="the first of them; default: 1")
    add("--store", choices=("memory", "sqlite", "both"), default="both")
    add("--load", type=float, default=15.0, metavar="N", help="simulated seconds of load")
    add("--jobs", type=int, default=2, metavar="N", help="processes; default: 2")
    arguments = parser.parse_args()
    bugs, found = arguments.planted or names(), 0
    stores = ("memory", "sqlite") if arguments.store == "both" else (arguments.store,)
    _tell(HEAD)
    for finding in findings(
        bugs,
        first=arguments.first,
        seeds=arguments.seeds,
        stores=stores,
        load=arguments.load,
        jobs=arguments.jobs,
    ):
        found += bool(finding.broken)
        _tell(finding.row())
    _tell(f"\n{found} of {len(bugs)} were found")
    return 0 if found == len(bugs) else 1


def _tell(words: str) -> None:
    print(words, flush=True)  # noqa: T201
