"""SQLite makes no temporary file to be able to undo a statement."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio
import sys

from jobledger_server.domain.commands import Create, CreateAll
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import open_database
from jobledger_server.database.url import parse_url
from jobledger_server.sql.sql_store import SqlStore
from tests.support.ledger_calls import create_all

JOBS = 1000  # so many that a statement changes far more than the 64 KiB that SQLite keeps in memory


async def create_jobs(file):
    database = open_database(parse_url(f"sqlite:///{file}"))
    async with Ledger(SqlStore(database), len, max_waiting=2 * JOBS) as ledger:
        for part in "ab":
            creations = (
                Create(user_id="ada", job_type="render", request_id=f"{part}-{n}")
                for n in range(JOBS)
            )
            await create_all(ledger, CreateAll(tuple(creations)))
    await database.close()


asyncio.run(create_jobs(sys.argv[1]))
"""


def test_batches_make_no_temporary_file(sqlite_template: Path, tmp_path: Path) -> None:
    file = shutil.copy(sqlite_template, tmp_path)
    folder = tmp_path / "temporary"
    folder.mkdir()
    # SQLite deletes such a file as soon as it is open: only the folder's time shows it.
    before = folder.stat().st_mtime_ns
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file)],
        env={**os.environ, "SQLITE_TMPDIR": str(folder)},
        check=True,
        timeout=60,
    )
    assert folder.stat().st_mtime_ns == before
