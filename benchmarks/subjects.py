"""The servers of targets.py as the older scenarios know them. It goes with the last of these."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.targets import DATABASES, Database, Server, new_database

__all__ = ["DATABASES", "Database", "Subject", "new_database", "serving", "serving_on"]


@dataclass(frozen=True)
class Subject:
    """A running server and its database. `database_pid` is the database's own process, if any."""

    database: str
    target: str
    pid: int
    url: str
    database_pid: int | None
    made: Database

    def feed_seq(self) -> int:
        return self.made.feed_seq()


@contextmanager
def serving(database: str, folder: Path, *arguments: str) -> Iterator[Subject]:
    with new_database(database, folder) as made, serving_on(made, *arguments) as subject:
        yield subject


@contextmanager
def serving_on(
    database: Database, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Subject]:
    with Server(database, *arguments, environment=environment) as server:
        yield Subject(
            database.name, server.target, server.pid, database.url, database.pid, database
        )
