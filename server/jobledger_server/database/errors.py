"""Classifies the database's errors: their kind, and whether a retry may succeed."""

import sqlite3

from sqlalchemy import exc

from jobledger_server.store import ErrorKind, StoreError, StoreFault, StoreUnavailable

_SQLITE: dict[int, ErrorKind] = {
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_PERM: "read_only",
    sqlite3.SQLITE_CONSTRAINT: "constraint",
    sqlite3.SQLITE_MISMATCH: "constraint",
    sqlite3.SQLITE_TOOBIG: "constraint",
    sqlite3.SQLITE_BUSY: "timeout",
    sqlite3.SQLITE_LOCKED: "timeout",
    sqlite3.SQLITE_PROTOCOL: "timeout",
    sqlite3.SQLITE_INTERRUPT: "timeout",
    sqlite3.SQLITE_CANTOPEN: "connection",
    sqlite3.SQLITE_IOERR: "io",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_ERROR: "programming",
    sqlite3.SQLITE_SCHEMA: "programming",
    sqlite3.SQLITE_MISUSE: "programming",
    sqlite3.SQLITE_RANGE: "programming",
}
"""By primary result code: https://sqlite.org/rescode.html."""

_POSTGRESQL: dict[str, ErrorKind] = {
    "53100": "disk_full",
    "25006": "read_only",
    "57014": "timeout",  # query_canceled: statement_timeout
    "55P03": "timeout",  # lock_not_available: lock_timeout
    "25P03": "timeout",  # idle_in_transaction_session_timeout
    "40P01": "timeout",  # deadlock_detected
    "XX001": "corrupt",
    "XX002": "corrupt",
    "08": "connection",
    "28": "connection",  # invalid_authorization_specification
    "3D": "connection",  # invalid_catalog_name
    "53": "connection",  # insufficient_resources: too_many_connections
    "57": "connection",  # operator_intervention: it is shutting down or starting
    "22": "constraint",
    "23": "constraint",
    "42": "programming",
    "58": "io",
}
"""By SQLSTATE, or by its class if the SQLSTATE is not here."""

DROPPED_SETTINGS = (
    "a connection pooler in front of PostgreSQL drops the settings of this server's sessions: give"
    " the address of PostgreSQL itself, or see docs/operate/databases.md for what to set"
)

_POOLED_TRANSACTIONS = (
    "a connection pooler in front of PostgreSQL pools transactions and loses prepared statements:"
    " let it pool sessions"
)

_REFUSED = frozenset({"28", "3D"})
"""By class of SQLSTATE: invalid_authorization_specification, invalid_catalog_name."""

_LOST_STATEMENT = frozenset({"26000", "42P05"})
"""By SQLSTATE: a prepared statement does not exist, or exists already."""

_MAX_CAUSE = 200
"""Characters of a cause at most."""

_HELP: dict[ErrorKind, str] = {
    "corrupt": "the database is damaged: stop the server and restore a backup, unless"
    " `jobledger-server check` says that it can be repaired",
    "programming": "the database lacks what a statement needs, or the statement is wrong",
}
"""The kinds that last until somebody repairs the database."""


def kind_of(error: BaseException) -> ErrorKind:
    """Return the kind of an error of SQLAlchemy or a driver."""
    error = _driver_error(error)
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE.get(code & 0xFF, "other")
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2], "other")
    if isinstance(error, TimeoutError | exc.TimeoutError):
        return "timeout"
    return "programming" if isinstance(error, sqlite3.ProgrammingError) else "connection"


def cause_of(error: BaseException) -> str:
    """Return the database's message, without the values that were sent to it."""
    error = _driver_error(error)
    unnamed = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return (str(error).partition("\n")[0] or unnamed)[:_MAX_CAUSE]


def failure(error: BaseException, *, stale: bool) -> StoreError:
    """Return the store's error for any error but a violated constraint."""
    kind, cause = kind_of(error), cause_of(error)
    if pooled := pooler_cause(error):
        return StoreFault(pooled, kind="programming")
    if kind in _HELP:
        return StoreFault(f"{_HELP[kind]} ({cause})", kind=kind)
    return StoreUnavailable(cause, kind=kind, stale=stale)


def is_outage(error: BaseException) -> bool:
    """Return whether waiting may help: the database may answer later, by the same URL.

    It does not help if the database refuses the user, or its name is unknown.
    """
    error = _driver_error(error)
    state = getattr(error, "sqlstate", None)
    if state is None:
        # A ValueError is wrong input: a parameter, or a certificate that cannot be verified.
        return not isinstance(error, ValueError)
    refused = state[:2] in _REFUSED or pooler_cause(error) is not None
    return not refused and kind_of(error) in ("connection", "read_only", "timeout")


def pooler_cause(error: BaseException) -> str | None:
    """Return what to do, if a connection pooler in front of PostgreSQL caused the error."""
    cause = cause_of(error)
    if getattr(_driver_error(error), "sqlstate", None) in _LOST_STATEMENT:
        return f"{_POOLED_TRANSACTIONS} ({cause})"
    return f"{DROPPED_SETTINGS} ({cause})" if "unsupported startup parameter" in cause else None


def _driver_error(error: BaseException) -> BaseException:
    original = error.orig if isinstance(error, exc.DBAPIError) else None
    return error if original is None else original
