"""Runs servers and clients in simulated time, breaks things by a seed, and checks every promise.

A seed that fails is told with the command that repeats it, and its plan is saved, for a plan stays
the same where a seed means another run after a change of the code.
"""

import argparse
import itertools
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import get_args

from tests.simulation.campaign import Summary, results
from tests.simulation.plan import Plan, Store, load, plan_of, save
from tests.simulation.shrink import Shrinker, describe
from tests.simulation.simulate import Result, simulate

PLANS = Path(__file__).parent / "plans"

STORES: tuple[Store, ...] = get_args(Store)

MINUTE = 60.0


def main() -> int:
    """Return 0 if every promise was kept in all runs, and every update and call made, else 1."""
    arguments = _arguments()
    stores = STORES if arguments.store == "both" else (arguments.store,)
    summary = Summary()
    for result in _results(arguments, stores):
        summary.add(result)
        if result.broken:
            _tell_of(result)
            if arguments.shrink:
                result = _shrunk(result)  # noqa: PLW2901
            if not arguments.no_save:
                file = PLANS / f"{next(iter(result.broken))}-{result.plan.seed}.json"
                save(result.plan, file)
                _tell(f"saved as {file.relative_to(Path.cwd())}")
        elif arguments.seed is not None or arguments.plan is not None:
            _tell(f"seed {result.plan.seed}: hash {result.hash}, {result.steps} steps")
    if arguments.seed is None and arguments.plan is None:
        _tell(str(summary))
    return 1 if summary.failed or summary.unused or summary.not_made else 0


def _arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="make simulate", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, metavar="N", help="run so many; default: 100, or what fits the time")
    add("--first", type=int, metavar="N", help="the first of them; default: by chance")
    add("--minutes", type=float, metavar="N", help="begin no further seed after so long")
    add("--seed", type=int, metavar="N", help="run this one")
    add("--plan", type=Path, metavar="FILE", help="run a saved plan")
    add("--store", choices=(*STORES, "both"), default="both")
    add("--load", type=float, default=15.0, metavar="N", help="simulated seconds of load")
    add("--jobs", type=int, default=2, metavar="N", help="processes; default: 2")
    add("--shrink", action="store_true", help="look for a small plan that fails like each")
    add("--no-save", action="store_true", help="do not save the plan of each that fails")
    add("--trace", type=Path, metavar="FILE", help="with --seed or --plan: write every step there")
    add(
        "--planted", action="store_true", help="plant bugs, and count the seeds until each is found"
    )
    return parser.parse_args()


def _results(arguments: argparse.Namespace, stores: Iterable[Store]) -> Iterator[Result]:
    plans: Iterable[Plan]
    if arguments.plan is not None:
        plans = [load(arguments.plan)]
    elif arguments.seed is not None:
        plans = [plan_of(arguments.seed, store, seconds=arguments.load) for store in stores]
    else:
        plans, go_on = _many(arguments, itertools.cycle(stores))
        yield from results(plans, jobs=arguments.jobs, go_on=go_on)
        return
    for plan in plans:
        trace: list[str] | None = None if arguments.trace is None else []
        yield simulate(plan, trace)
        if trace is not None:
            arguments.trace.write_text("\n".join(trace))


def _many(
    arguments: argparse.Namespace, stores: Iterator[Store]
) -> tuple[Iterator[Plan], Callable[[], bool]]:
    first = random.randrange(10**9) if arguments.first is None else arguments.first
    count = arguments.seeds or (None if arguments.minutes else 100)
    seeds = itertools.count(first) if count is None else range(first, first + count)
    _tell(f"from seed {first}")
    until = time.monotonic() + MINUTE * (arguments.minutes or float("inf"))
    plans = (plan_of(seed, next(stores), seconds=arguments.load) for seed in seeds)
    return plans, lambda: time.monotonic() < until


def _shrunk(result: Result) -> Result:
    shrinker = Shrinker(result)
    smallest = shrinker.shrink()
    _tell(f"shrunk in {shrinker.runs} runs:")
    _tell_of(smallest)
    return smallest


def _tell_of(result: Result) -> None:
    plan = result.plan
    _tell(f"FAILED seed {plan.seed} at commit {_commit()}, hash {result.hash}")
    for promise, found in result.broken.items():
        for what in found:
            _tell(f"  {promise}: {what}")
    _tell(f"  plan: {describe(plan)}")
    for fault in plan.faults:
        _tell(f"    {fault.at:7.3f} s: {fault.kind} for {fault.lasts} s, seed {fault.seed}")
    if plan == plan_of(plan.seed, plan.store, seconds=plan.seconds):
        options = f"--seed {plan.seed} --store {plan.store} --load {plan.seconds:g}"
        _tell(f'  repeat: make simulate ARGS="{options}"')


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _tell(words: str) -> None:
    print(words, flush=True)  # noqa: T201
