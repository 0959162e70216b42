"""Runs many plans in several processes, and adds up what came of them."""

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

from tests.checker.clients.calls import not_made
from tests.checker.clients.update_kinds import unused
from tests.simulation.plan import Plan
from tests.simulation.simulate import Result, simulate

RUNS_OF_A_PROCESS = 100
"""A process is replaced after so many, since its memory is collected only between two runs."""

SEEDS_FOR_ALL_KINDS = 20
"""So many seeds send updates of all kinds and make all calls; one with little load may not."""


def results(
    plans: Iterable[Plan], *, jobs: int, go_on: Callable[[], bool] = lambda: True
) -> Iterator[Result]:
    """Run plans; yield what came of each, in the order in which they end.

    Args:
        plans: What to run. May be endless.
        jobs: Processes at once.
        go_on: Asked before each further plan is begun.
    """
    left = iter(plans)
    context = multiprocessing.get_context("spawn")
    running: set[Future[Result]] = set()
    with ProcessPoolExecutor(jobs, context, max_tasks_per_child=RUNS_OF_A_PROCESS) as pool:
        try:
            running |= {pool.submit(simulate, plan) for plan in islice(left, jobs)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                    if go_on():
                        running |= {pool.submit(simulate, plan) for plan in islice(left, 1)}
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(slots=True)
class Summary:
    """What many runs came to."""

    seeds: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    updates: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)

    @property
    def unused(self) -> list[str]:
        """The kinds of updates that no load has sent, if there were enough seeds for all."""
        return unused(self.updates) if self.seeds.total() >= SEEDS_FOR_ALL_KINDS else []

    @property
    def not_made(self) -> list[str]:
        """The calls that no load has made, if there were enough seeds for all."""
        return not_made(self.answered) if self.seeds.total() >= SEEDS_FOR_ALL_KINDS else []

    def add(self, result: Result) -> None:
        """Add what one run came to."""
        self.seeds[f"on {result.plan.store}"] += 1
        self.failed += bool(result.broken)
        self.seconds += result.seconds
        self.cpu += result.cpu
        self.steps += result.steps
        self.faults.update(result.faults)
        self.counts.update(result.counts)
        self.updates.update(result.updates)
        self.answered.update(result.answered)

    def __str__(self) -> str:
        cpu, seeds = self.cpu or 1.0, self.seeds.total()
        pace = f"{60 * seeds / cpu:.0f} seeds, {60 * self.seconds / cpu:,.0f} simulated seconds"
        lines = (
            f"{seeds:,} seeds, of which {self.failed} failed: {_listed(self.seeds)}",
            f"{self.seconds / 3600:,.2f} simulated hours, {self.steps:,} steps",
            f"in a minute of CPU: {pace}",
            f"{self.faults.total():,} faults: {_listed(self.faults)}",
            f"at the database: {_listed(self.counts)}",
            f"updates: {_listed(self.updates)}",
            *([f"no worker has sent: {', '.join(self.unused)}"] if self.unused else ()),
            *([f"no client has made: {', '.join(self.not_made)}"] if self.not_made else ()),
        )
        return "\n".join(lines)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "none"
