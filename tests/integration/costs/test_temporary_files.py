"""SQLite makes no file for what a statement might have to undo."""

from pathlib import Path

from jobledger_client import Client, NewJob
from tests.support.server_process import ServerProcess

JOBS = 1000
"""Enough that each statement changes far more than the 64 KiB that SQLite keeps in memory."""


def test_batches_make_no_temporary_file(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    # SQLite deletes such a file as soon as it is open: only the folder's time tells of it.
    before = folder.stat().st_mtime_ns
    with (
        ServerProcess(tmp_path, environment={"SQLITE_TMPDIR": str(folder)}) as server,
        Client(server.target, user_id="ada") as ada,
    ):
        ada.create_jobs([NewJob("render", request_id=f"r-{n}") for n in range(JOBS)])
        ada.create_jobs([NewJob("render", request_id=f"s-{n}") for n in range(JOBS)])
    assert folder.stat().st_mtime_ns == before
