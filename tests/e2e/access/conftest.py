"""Access control does not use the database, so one kind of database is enough."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    file = tmp_path / "jobledger.db"
    shutil.copy(sqlite_template, file)
    return f"sqlite:///{file}"
