"""Reads the URL of a database."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

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

SESSION_ATTRS = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")

PRIMARY_ATTRS = ("read-write", "primary")
"""The values of `target_session_attrs` that only a primary fits."""

SEVERAL_HOSTS = re.compile(
    r"(postgres(?:ql)?(?:\+\w+)?://(?:[^@/?#]*@)?)([^@/?#]*,[^@/?#]*)((?:[/?#].*)?)", re.DOTALL
)
"""A URL with several hosts before the name of its database. SQLAlchemy cannot read it."""

HOST = re.compile(r"(?:\[([^\[\]]+)\]|(/.*|[^:\[\]]+))(?::(.*))?")
"""[IPV6], the folder of a socket or a name; and a port."""

USAGE = "write sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"


class BadDatabaseUrl(Exception):
    """The database URL cannot be used; the message says why and what to write instead."""


def parse_url(database: str) -> URL:
    """Read a database URL and set its driver.

    Raises:
        BadDatabaseUrl: The URL cannot be used. No message repeats the URL: in one that cannot
            be read, any part may be the password.
    """
    several = SEVERAL_HOSTS.fullmatch(database)
    start, hosts, end = several.groups() if several else (database, "", "")
    try:
        url = make_url(start + end)
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
            _check_encoding(database)
            query = _checked_parameters(url)
            if hosts or "host" in query:
                url = _with_hosts(url, unquote(hosts), query)
            else:
                _check_ports([query.get("port", "") if url.port is None else str(url.port)])
            return url.set(drivername="postgresql+asyncpg")
        case other:
            raise BadDatabaseUrl(f"cannot use a {other!r} database: {USAGE}")


def hosts_of(url: URL) -> Sequence[tuple[str | None, int | None]]:
    """Return the hosts, with their ports, of a PostgreSQL URL from `parse_url`.

    None is the driver's default.
    """
    ports = [int(port) if port else None for port in str(url.query.get("port", "")).split(",")]
    if "host" not in url.query:
        return [(url.host, url.port or ports[0])]
    return list(zip(str(url.query["host"]).split(","), ports, strict=True))


def _check_encoding(database: str) -> None:
    # A password with one of these characters is cut there. The rest of it would be read as the
    # host or the name of the database, which error messages show.
    authority, *others = re.split("[/?#]", database.partition("://")[2], maxsplit=1)
    if authority.count("@") > 1 or "@" in "".join(others):
        raise BadDatabaseUrl(f"the database URL has more than one @: percent-encode {ENCODED}")


def _checked_parameters(url: URL) -> Mapping[str, str]:
    """Return the parameters. SQLAlchemy also has one `host` for each of several."""
    query = {
        name: ",".join(value) if name == "host" and not isinstance(value, str) else value
        for name, value in url.query.items()
    }
    texts = {name: value for name, value in query.items() if isinstance(value, str)}
    if repeated := query.keys() - texts.keys():
        raise BadDatabaseUrl(f"the database URL has the parameter {min(repeated)!r} twice")
    if unknown := texts.keys() - PARAMETERS:
        raise BadDatabaseUrl(
            f"the database URL has an unknown parameter {min(unknown)!r}: "
            f"these are known: {', '.join(sorted(PARAMETERS))}"
        )
    for name, values in (("sslmode", SSL_MODES), ("target_session_attrs", SESSION_ATTRS)):
        if (value := texts.get(name, values[0])) not in values:
            raise BadDatabaseUrl(f"{name}={value} in the database URL: use {', '.join(values)}")
    return texts


def _check_ports(ports: Sequence[str]) -> None:
    """Raise BadDatabaseUrl unless each can be used. An empty one is the default."""
    if not all(not port or (port.isdecimal() and 1 <= int(port) <= LAST_PORT) for port in ports):
        raise BadDatabaseUrl(f"the port in the database URL must be from 1 to {LAST_PORT}")


def _with_hosts(url: URL, hosts: str, query: Mapping[str, str]) -> URL:
    """Return the URL with its hosts in the parameter `host`, and a port for each in `port`."""
    if (hosts or url.host) and "host" in query:
        raise BadDatabaseUrl("the database URL has hosts before and after its ?: write all in one")
    named = (hosts or query["host"]).split(",")
    ports = query.get("port", "").split(",")
    if len(ports) not in (1, len(named)):
        raise BadDatabaseUrl(
            f"the database URL has {len(named)} hosts and {len(ports)} ports: "
            "write one port for all of them, or one for each"
        )
    if len(named) > 1 and query.get("target_session_attrs") not in PRIMARY_ATTRS:
        raise BadDatabaseUrl(
            "the database URL has several hosts: append target_session_attrs=read-write, "
            "so that the server uses the one that is the primary"
        )
    found = [HOST.fullmatch(host) for host in named]
    if not all(found):
        raise BadDatabaseUrl("a host of the database URL must be NAME, NAME:PORT or [IPV6]:PORT")
    parts = [match.groups() for match in found if match]
    ports = [
        own or port
        for (*_, own), port in zip(parts, ports * (len(parts) // len(ports)), strict=True)
    ]
    _check_ports(ports)
    names = [ipv6 or name for ipv6, name, _ in parts]
    return url.set(query={**query, "host": ",".join(names), "port": ",".join(ports)})
