"""Reads the URL of a database."""

import re

from sqlalchemy import URL, exc, make_url

ENCODED = "special characters of the password (@ : / ? # %)"

LAST_PORT = 65_535

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

PARAMETERS = frozenset(
    {"host", "port", "passfile", "target_session_attrs"}
    | {"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"}
    | {"ssl_min_protocol_version", "ssl_max_protocol_version"}
)
"""The parameters that a PostgreSQL URL may have; they mean what they mean to libpq."""

USAGE = "write sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"


class BadDatabaseUrl(Exception):
    """The database URL cannot be used; the message says why and what to write instead."""


def parse_url(database: str) -> URL:
    """Read a database URL and set its driver.

    Raises:
        BadDatabaseUrl: The URL cannot be used. No message repeats the URL: in one that cannot
            be read, any part may be the password.
    """
    try:
        url = make_url(database)
    except (exc.ArgumentError, ValueError):  # the latter for a port
        raise BadDatabaseUrl(
            f"cannot read the database URL: {USAGE}, with {ENCODED} percent-encoded"
        ) from None
    match url.get_backend_name():
        case "sqlite":
            if not url.database or url.database == ":memory:" or "mode=memory" in str(url):
                raise BadDatabaseUrl("SQLite needs a file, not memory: write sqlite:///FILE")
            if url != URL.create(url.drivername, database=url.database):
                # A parameter could make SQLite open another file than the one that is locked.
                raise BadDatabaseUrl("an SQLite URL has a file and nothing else: " + USAGE)
            return url.set(drivername="sqlite+aiosqlite")
        case "postgresql" | "postgres":
            _check_postgresql(database, url)
            return url.set(drivername="postgresql+asyncpg")
        case other:
            raise BadDatabaseUrl(f"cannot use a {other!r} database: {USAGE}")


def _check_postgresql(database: str, url: URL) -> None:
    # A password with one of these characters is cut there. The rest of it would be read as the
    # host or the name of the database, which error messages show.
    authority, *others = re.split("[/?#]", database.partition("://")[2], maxsplit=1)
    if authority.count("@") > 1 or "@" in "".join(others):
        raise BadDatabaseUrl(f"the database URL has more than one @: percent-encode {ENCODED}")
    query = {name: value for name, value in url.query.items() if isinstance(value, str)}
    if repeated := url.query.keys() - query.keys():
        raise BadDatabaseUrl(f"the database URL has the parameter {min(repeated)!r} twice")
    if unknown := query.keys() - PARAMETERS:
        raise BadDatabaseUrl(
            f"the database URL has an unknown parameter {min(unknown)!r}: "
            f"these are known: {', '.join(sorted(PARAMETERS))}"
        )
    ports = [url.port] if url.port is not None else query.get("port", "1").split(",")
    if not all(str(port).isdecimal() and 1 <= int(port) <= LAST_PORT for port in ports):
        raise BadDatabaseUrl(f"the port in the database URL must be from 1 to {LAST_PORT}")
    if (mode := query.get("sslmode", "prefer")) not in SSL_MODES:
        raise BadDatabaseUrl(f"sslmode={mode} in the database URL: use {', '.join(SSL_MODES)}")
