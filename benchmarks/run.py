"""What a scenario is given: its options, where it may leave files, and where its figures go."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.postgres import Cluster
from benchmarks.processes import GENERATORS, Generator
from benchmarks.stats import Report
from benchmarks.targets import Database, Server, new_database

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One run of a scenario.

    Attributes:
        arguments: all options, the scenario's own among them.
        folder: a temporary folder, removed at the end.
        stack: what is entered here is left at the end.
        report: where the figures go.
    """

    arguments: argparse.Namespace
    folder: Path
    stack: ExitStack
    report: Report

    @property
    def databases(self) -> Sequence[str]:
        databases: Sequence[str] = self.arguments.database
        return databases

    @property
    def rounds(self) -> int:
        return int(self.arguments.rounds)

    @property
    def seconds(self) -> float:
        """How long each slice of load takes."""
        return float(self.arguments.seconds)

    def each_round(self) -> Iterator[int]:
        """Yield the rounds' numbers, and say on standard error which one it is."""
        for number in range(1, self.rounds + 1):
            self.tell(f"round {number} of {self.rounds}")
            yield number

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enter a context that is left when the run ends."""
        return self.stack.enter_context(context)

    def database(self, name: str) -> Database:
        """Have a new database until the run ends."""
        return self.enter(new_database(name, self.folder))

    def cluster(self) -> Cluster | None:
        """Start PostgreSQL, if it is measured, for several databases; it ends with the run."""
        return self.enter(Cluster()) if "PostgreSQL" in self.databases else None

    def serving(self, database: str | Database, *arguments: str) -> Server:
        """Serve on a database, a new one where only its kind is named, until the run ends."""
        if isinstance(database, str):
            database = self.database(database)
        return self.enter(Server(database, *arguments, *self.arguments.serve))

    def generators(self, program: str = "load.calls", number: int = GENERATORS) -> list[Generator]:
        """Start processes that make load; they end with the run."""
        return [self.enter(Generator(program)) for _ in range(number)]

    def tell(self, what: str) -> None:
        """Say on standard error what is being done."""
        print(f"{self.arguments.name}: {what}", file=sys.stderr, flush=True)
