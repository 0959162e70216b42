"""The scenarios of `run`. Here is what each is given, and how it says which options it has."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from benchmarks import postgres
from benchmarks.measure import GENERATORS, Usage, Work, add_usage, in_order, measure
from benchmarks.processes import Generator
from benchmarks.stats import Report
from benchmarks.targets import Database, Server, new_database

T = TypeVar("T")


class Run:
    """One run of a scenario: its options, what it starts, and its results.

    Args:
        arguments: all options, the scenario's own among them.
        folder: a temporary folder.
        stack: what is entered here is left at the end.

    Attributes:
        report: where the results go.
        load_cores: the most that generators have used.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self.arguments = arguments
        self.databases: Sequence[str] = arguments.database
        self.seconds: float = arguments.seconds
        self.stack = stack
        self.report = Report()
        self.load_cores = 0.0
        self.folder = folder
        self._cluster: postgres.Cluster | None = None

    def each_round(self) -> Iterator[int]:
        """Yield the rounds' numbers, and say on standard error which one it is."""
        for number in range(1, self.arguments.rounds + 1):
            self.tell(f"round {number} of {self.arguments.rounds}")
            yield number

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enter a context that is left when the run ends."""
        return self.stack.enter_context(context)

    def database(self, name: str) -> Database:
        """Have a new database until the run ends, all of PostgreSQL in one cluster."""
        if name == "PostgreSQL" and self._cluster is None:
            self._cluster = self.enter(postgres.cluster())
        return self.enter(new_database(name, self.folder, self._cluster))

    def serving(self, database: str | Database, *arguments: str) -> Server:
        """Serve on a database, a new one where only its kind is named, until the run ends."""
        if isinstance(database, str):
            database = self.database(database)
        return self.enter(Server(database, *arguments, *self.arguments.serve))

    @cached_property
    def generators(self) -> list[Generator]:
        """Processes that make load; they end with the run."""
        return [self.enter(Generator()) for _ in range(GENERATORS)]

    def measure(self, work: Work, servers: Sequence[Server], turn: int) -> dict[Server, Usage]:
        """Have all do the same in turn, and add what it took. Raises BenchmarkError.

        In every second round the order is the other way round.
        """
        usages: dict[Server, Usage] = {}
        for server in in_order(servers, turn):
            usage = usages[server] = measure(server, self.generators, work, self.seconds)
            self.load_cores = max(self.load_cores, usage.load_cores)
            add_usage(self.report, f"{work.title}, {server.database.name}", work, usage)
        return usages

    def tell(self, what: str) -> None:
        """Say on standard error what is being done."""
        print(f"{self.arguments.name}: {what}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Scenario:
    """Something to measure. The first line of `measure` is what the command line says of it.

    Attributes:
        measure: does it, and raises BenchmarkError.
        options: its own ones, with their defaults and what they are.
    """

    measure: Callable[[Run], None]
    options: Mapping[str, tuple[float, str]] = field(default_factory=dict)
