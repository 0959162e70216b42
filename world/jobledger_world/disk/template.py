"""A migrated SQLite file, made once for each process and copied for each run."""

import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random

from jobledger_server.embedded import make_sqlite_file
from jobledger_world.chance import Chance


def new_file(path: Path, chance: Chance) -> None:
    """Write a database that is up to date and empty, and whose secrets the seed decides."""
    path.write_bytes(_migrated())
    random = chance.of("database")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE feed SET epoch = ?, watch_key = ?",
            (random.randbytes(16).hex(), random.randbytes(32).hex()),
        )


def set_epoch(path: Path, random: Random) -> None:
    """Give the feed of a database another epoch, so that the tokens of this one are void."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE feed SET epoch = ?", (random.randbytes(16).hex(),))


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "jobledger.db"
        make_sqlite_file(file)
        return file.read_bytes()
