"""Counts what goes to the database: every errand of a driver, which is a round trip each."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiosqlite
import asyncpg
import pytest
from asyncpg.prepared_stmt import PreparedStatement


class Errands:
    """The statements that were run since the last `taken`, in their order."""

    def __init__(self) -> None:
        self._seen: list[str] = []

    def note(self, what: str) -> None:
        self._seen.append(what)

    def taken(self) -> list[str]:
        """Return them, each as its first word and the table it is about, and forget them."""
        seen, self._seen = self._seen, []
        return [_brief(statement) for statement in seen]

    def statements(self) -> list[str]:
        """Return the same without what SQLAlchemy asks SQLite's thread for around each of them."""
        return [errand for errand in self.taken() if errand not in _AROUND]


_AROUND = ("CURSOR", "FETCHALL", "CLOSE", "ROLLBACK")
_TABLE = re.compile(r"FROM (jobs|assets|job_transitions|tombstones|feed)\b")
_WRITES = re.compile(r"\b(?:(INSERT) INTO|(UPDATE)) (\w+)")


def _brief(statement: str) -> str:
    words = statement.split()
    verb = words[0].upper()
    if statement.startswith("SELECT (extract"):
        return "SELECT clock"
    if verb in ("SELECT", "DELETE"):
        # The first of our tables: there are also those that are made of bound lists.
        table = _TABLE.search(statement)
        return f"{verb} {table[1]}" if table else statement
    if verb in ("PRAGMA", "COPY"):
        return statement
    if verb == "WITH":
        # Several writes in one statement.
        return " + ".join(" ".join(filter(None, words)) for words in _WRITES.findall(statement))
    if verb in ("INSERT", "UPDATE"):
        return f"{verb} {words[2] if verb == 'INSERT' else words[1]}"
    return verb


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Errands]:
    """Count in the block, on both drivers, from the calls that send something."""
    errands = Errands()
    with monkeypatch.context() as patched:
        execute = aiosqlite.Connection._execute

        async def on_sqlite(self: Any, function: Any, *args: Any, **options: Any) -> Any:
            name = getattr(function, "__name__", "")
            errands.note(args[0] if args and isinstance(args[0], str) else name)
            return await execute(self, function, *args, **options)

        patched.setattr(aiosqlite.Connection, "_execute", on_sqlite)
        for name in ("execute", "fetch", "fetchval"):
            patched.setattr(asyncpg.Connection, name, _noting(errands, name))
        copy = asyncpg.Connection.copy_records_to_table

        async def copying(self: Any, table: str, **options: Any) -> Any:
            errands.note(f"COPY {table}")
            return await copy(self, table, **options)

        patched.setattr(asyncpg.Connection, "copy_records_to_table", copying)
        fetch = PreparedStatement.fetch

        async def by_sqlalchemy(self: Any, *args: Any, **options: Any) -> Any:
            errands.note(self.get_query())
            return await fetch(self, *args, **options)

        patched.setattr(PreparedStatement, "fetch", by_sqlalchemy)
        yield errands


def _noting(errands: Errands, name: str) -> Any:
    send = getattr(asyncpg.Connection, name)

    async def noted(self: Any, query: str, *args: Any, **options: Any) -> Any:
        errands.note(query)
        return await send(self, query, *args, **options)

    return noted
