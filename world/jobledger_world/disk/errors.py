"""The errors that SQLite's driver raises."""

import sqlite3

UNREADABLE = "disk I/O error", sqlite3.SQLITE_IOERR_READ
UNWRITABLE = "disk I/O error", sqlite3.SQLITE_IOERR_WRITE
UNFLUSHED = "disk I/O error", sqlite3.SQLITE_IOERR_FSYNC
FULL = "database or disk is full", sqlite3.SQLITE_FULL
MISSING = "unable to open database file", sqlite3.SQLITE_CANTOPEN
LOCKED = "database is locked", sqlite3.SQLITE_BUSY
INTERRUPTED = "interrupted", sqlite3.SQLITE_INTERRUPT


def sqlite_error(message: str, code: int) -> sqlite3.OperationalError:
    """Return the driver's error for this message and (extended) result code."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error
