"""The next version of the server: this one with another schema and migrations of its own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jobledger_server
from jobledger_server.sql.schema import HEAD
from tests.support import forked

ADDS_COLUMN = """
    op.add_column("jobs", sa.Column("of_next", sa.Text))
"""

ADDS_INDEX = """
    if op.get_bind().dialect.name == "postgresql":
        with op.get_context().autocommit_block():
            op.drop_index("ix_jobs_of_next", if_exists=True, postgresql_concurrently=True)
            op.create_index(
                "ix_jobs_of_next", "jobs", ["of_next"], postgresql_concurrently=True
            )
"""

_MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
{schema_min}

def upgrade() -> None:{upgrade}
"""


_MIGRATES = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
for name in [each for each in sys.modules if each.partition(".")[0] == "jobledger_server"]:
    del sys.modules[name]
runpy.run_module("jobledger_server", run_name="__main__", alter_sys=True)
"""
"""In a fork, only the server is imported once more: of a folder."""


class NextVersion:
    """The package in a folder, which is the PYTHONPATH of the processes that are to use it.

    What it does not change is read from this version, whose bytecode is there.

    Args:
        folder: Where to write it.
        upgrades: What its migrations do, in Python.
        schema_min: What they say of older servers; None if they say nothing.
        constants: Other values for what `schema` defines.
    """

    def __init__(
        self,
        folder: Path,
        upgrades: Sequence[str] = (ADDS_COLUMN, ADDS_INDEX),
        *,
        schema_min: str | None = HEAD,
        **constants: float,
    ) -> None:
        self.folder = folder
        self._sql = folder / "jobledger_server" / "sql"
        source = Path(jobledger_server.__file__).parent
        unwanted = shutil.ignore_patterns("__pycache__")
        migrations = Path("sql", "migrations")
        shutil.copytree(
            source / migrations, folder / "jobledger_server" / migrations, ignore=unwanted
        )
        shutil.copy(source / "sql" / "schema.py", self._sql)
        for package in (source, source / "sql"):
            own = folder / "jobledger_server" / package.relative_to(source) / "__init__.py"
            own.write_text(f"__path__.append({str(package)!r})\n")
        before = HEAD
        for upgrade in upgrades:
            self.head = f"{int(before) + 1:04}"
            migration = _MIGRATION.format(
                revision=self.head,
                before=before,
                schema_min=f'schema_min = "{schema_min}"' if schema_min else "",
                upgrade=upgrade,
            )
            file = self._sql / "migrations" / "versions" / f"{self.head}_next.py"
            file.write_text(migration)
            before = self.head
        self._define(**constants)

    def migrate(self, database: str) -> tuple[int, str, str]:
        """Run `jobledger-server migrate`; return its exit code and its output."""
        arguments = (str(self.folder), "migrate", "--database", database)
        done = forked.run("python", _MIGRATES, *arguments, env=os.environ)
        return done.returncode, done.stdout, done.stderr

    def _define(self, **constants: object) -> None:
        text = (self._sql / "schema.py").read_text()
        for name, value in constants.items():
            text, found = re.subn(
                rf"^{name} = .*$", f"{name} = {value!r}", text, flags=re.MULTILINE
            )
            assert found == 1
        (self._sql / "schema.py").write_text(text)


def run_migrate(database: str, version: Path | None) -> tuple[int, str, str]:
    """Run `jobledger-server migrate`; return its exit code and its output.

    `version` is a folder with the packages of another version.
    """
    done = subprocess.run(
        [sys.executable, "-m", "jobledger_server", "migrate", "--database", database],
        check=False,
        capture_output=True,
        env={**os.environ, **({} if version is None else {"PYTHONPATH": str(version)})},
        text=True,
    )
    return done.returncode, done.stdout, done.stderr
