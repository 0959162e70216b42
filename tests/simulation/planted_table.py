"""The table of planted bugs, in a page of the docs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HEAD = "| bug | what is wrong | store | seeds | found by |\n| --- | --- | --- | --- | --- |\n"


class Finding(NamedTuple):
    """How a bug was found.

    Attributes:
        bug: Its name.
        what: What is wrong.
        store: What the servers' store was.
        seeds: How many were run, the last of which found it.
        broken: The promises that this seed found broken; empty if no seed has found the bug.
        gap: Why no seed finds it, if that is known.
    """

    bug: str
    what: str
    store: str
    seeds: int
    broken: Sequence[str] = ()
    gap: str = ""

    def row(self) -> str:
        """Return the row of the table."""
        seeds = str(self.seeds) if self.broken else f"not in {self.seeds}"
        found = ", ".join(self.broken) or self.gap
        what = self.what.rstrip(".")
        return f"| {self.bug} | {what} | {self.store} | {seeds} | {found} |"


class Table:
    """The table in a page, whose other text stays.

    Args:
        file: The page. It has the head of the table.
        bugs: The names of all bugs, in the order of the rows. Others are left out.

    Attributes:
        rows: By the name of the bug.
    """

    def __init__(self, file: Path, bugs: Sequence[str]) -> None:
        self._file = file
        self._bugs = bugs
        self._before, head, after = file.read_text().partition(HEAD)
        if not head:
            raise ValueError(f"{file} has no table of planted bugs")
        lines = after.splitlines(keepends=True)
        rows = [line for line in lines if line.startswith("|")]
        self._after = "".join(lines[len(rows) :])
        self.rows = {line.split("|")[1].strip(): line for line in rows}

    @property
    def found(self) -> set[str]:
        """The bugs that some seed has found."""
        return {bug for bug, row in self.rows.items() if row.split("|")[4].strip().isdigit()}

    def add(self, finding: Finding) -> None:
        """Write a row, in place of an earlier one of the same bug."""
        self.rows[finding.bug] = f"{finding.row()}\n"
        rows = (self.rows[bug] for bug in self._bugs if bug in self.rows)
        self._file.write_text(f"{self._before}{HEAD}{''.join(rows)}{self._after}")
