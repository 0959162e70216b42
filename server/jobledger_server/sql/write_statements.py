"""The statements that write the rows of a batch.

Their text is the same on both databases but for how the rows are passed. A driver gives them the
name `new`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, Table

Value = Callable[[Column[Any]], str]
"""Returns what a column is set to, from the column of `new` with the same name."""


@dataclass(frozen=True, eq=False)
class Insertion:
    """Inserts rows, or changes those that exist.

    Attributes:
        table: The table.
        columns: The columns that the rows have.
        changed: By column, its new value in a row that exists. Else such a row is an error.
        key: The unique columns by which a row is found, if they are not the primary key.
        inserted: By column, its value in a row that is inserted, if not that of `new`.
    """

    table: Table
    columns: Sequence[str]
    changed: Mapping[str, str] = field(default_factory=dict)
    key: Sequence[str] = ()
    inserted: Mapping[str, str] = field(default_factory=dict)

    @property
    def given(self) -> Mapping[str, Column[Any]]:
        """The columns of `new`, each with the column of the table that has its type."""
        return {name: self.table.c[name] for name in self.columns}

    def text(self, source: str, value: Value) -> str:
        """Return the statement, with what it selects `new` from."""
        names = [*self.columns, *(name for name in self.inserted if name not in self.columns)]
        values = (self.inserted.get(name) or value(self.table.c[name]) for name in names)
        text = f"INSERT INTO {self.table.name} ({', '.join(names)}) SELECT {', '.join(values)}"
        if not self.changed:
            return f"{text} FROM {source}"
        key = ", ".join(self.key or self.table.primary_key.columns.keys())
        changes = ", ".join(f"{name} = {changed}" for name, changed in self.changed.items())
        return f"{text} FROM {source} ON CONFLICT ({key}) DO UPDATE SET {changes}"


def replacement(table: Table, columns: Sequence[str]) -> Insertion:
    """Return the statement that inserts rows, and replaces those of the same primary key."""
    key = table.primary_key.columns.keys()
    return Insertion(table, columns, {c: f"excluded.{c}" for c in columns if c not in key})


@dataclass(frozen=True, eq=False)
class Update:
    """Updates rows, each given as its key and the new values.

    It is an error, and nothing is written, if a row is not there.

    Attributes:
        table: The table. Its primary key is one column.
        columns: The columns that are set to the new values.
        kept: Those of them that keep their value where the new one is NULL.
        computed: By column, its value if it is none of these.
    """

    table: Table
    columns: Sequence[str]
    kept: Collection[str] = ()
    computed: Mapping[str, str] = field(default_factory=dict)

    @property
    def given(self) -> Mapping[str, Column[Any]]:
        """See Insertion. The key comes first."""
        (key,) = self.table.primary_key
        return {"key": key, **{name: self.table.c[name] for name in self.columns}}

    def text(self, source: str, value: Value) -> str:
        """See Insertion."""
        table, key = self.table.name, self.given["key"].name
        values = {name: self._new_value(name, value) for name in self.columns}
        changes = ", ".join(f"{name} = {new}" for name, new in {**values, **self.computed}.items())
        return f"UPDATE {table} SET {changes} FROM {source} WHERE {table}.{key} = new.key"  # noqa: S608

    def _new_value(self, name: str, value: Value) -> str:
        new = value(self.table.c[name])
        return f"coalesce({new}, {self.table.name}.{name})" if name in self.kept else new


@dataclass(frozen=True, eq=False)
class Deletion:
    """Deletes the rows of a table whose column has one of the values given."""

    table: Table
    column: str

    @property
    def given(self) -> Mapping[str, Column[Any]]:
        """See Insertion."""
        return {"key": self.table.c[self.column]}

    def text(self, source: str, value: Value) -> str:  # noqa: ARG002
        """See Insertion."""
        keys = f"SELECT new.key FROM {source}"  # noqa: S608
        return f"DELETE FROM {self.table.name} WHERE {self.column} IN ({keys})"  # noqa: S608


@dataclass(frozen=True, eq=False)
class Cut:
    """Deletes the first rows of some keys, up to one that is given for each.

    Attributes:
        table: The table. Its rows have the order of the last column of its key.
        query: The query for the rows `old` to delete, from its first join on.
        rows_of: Returns the condition for the rows `old` of a query, which begins with FROM.
    """

    table: Table
    query: str
    rows_of: Callable[[str], str]

    @property
    def given(self) -> Mapping[str, Column[Any]]:
        """See Insertion."""
        return {f"cut_{column.name}": column for column in self.table.primary_key}

    def text(self, source: str, value: Value) -> str:  # noqa: ARG002
        """See Insertion."""
        rows = self.rows_of(f"FROM {source} {self.query}")
        return f"DELETE FROM {self.table.name} WHERE {rows}"  # noqa: S608


WriteStatement = Insertion | Update | Deletion | Cut
