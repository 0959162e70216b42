"""Opens a PostgreSQL database: its connections and their settings."""

import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from jobledger_server.database.url import BadDatabaseUrl
from jobledger_server.domain.limits import LIST_SECONDS
from jobledger_server.sql.rows import labels_from_text

if TYPE_CHECKING:
    from jobledger_server.database.postgresql_connection import PostgresqlConnection

CONNECT_SECONDS = 3
"""How long PostgreSQL may take to accept a connection before it counts as unavailable."""

WRITERS, READERS, LISTS = 4, 6, 2
"""Connections. Lists take longer than all other reads, so they have their own."""


def open_postgresql(
    url: URL, *, seconds: float | None
) -> tuple[AsyncEngine, AsyncEngine, AsyncEngine]:
    """Return the engines of a `Database`: the writer, the reader and that of lists.

    Raises:
        BadDatabaseUrl: A file for TLS cannot be used.
    """
    _check_certificates(url.query)
    none = {"statement_timeout": "0"}
    # The database's own limit would end a write that this server still waits for.
    writer = _engine(url, WRITERS, seconds, none)
    reader = _engine(url, READERS, seconds, none if seconds is None else {})
    # PostgreSQL ends a list by itself: most lists that take too long have lost their caller.
    lists = _engine(url, LISTS, seconds, {"statement_timeout": f"{LIST_SECONDS}s"})
    return writer, reader, lists


def _engine(
    url: URL, connections: int, seconds: float | None, own: Mapping[str, str]
) -> AsyncEngine:
    """Make an engine with a time limit for each statement, and some settings of its own."""
    # PostgreSQL's driver is an extra, and others import this module for its numbers.
    from jobledger_server.database.hosts import connect  # noqa: PLC0415
    from jobledger_server.database.postgresql_connection import (  # noqa: PLC0415
        PostgresqlConnection,
    )

    engine = create_async_engine(
        url.set(query={}),
        pool_size=connections,
        max_overflow=0,
        json_deserializer=labels_from_text,
        hide_parameters=True,  # they are the callers' data, and errors are logged
        pool_timeout=CONNECT_SECONDS,
        async_creator=partial(
            connect,
            url,
            seconds=CONNECT_SECONDS,
            command_timeout=seconds,
            connection_class=PostgresqlConnection,
            server_settings={
                "application_name": "jobledger",
                "synchronous_commit": "on",
                # A server that freezes between locking the counter and its commit blocks the
                # others for at most this long.
                "idle_in_transaction_session_timeout": f"{seconds or 0}s",
                # Before the client gives up: what a statement did that was abandoned is unknown.
                "lock_timeout": f"{(seconds or 0) * 0.8:g}s",
                "jit": "off",
                # A generic plan made while a table was small would stay, with an index that reads
                # the whole table when it is large.
                "plan_cache_mode": "force_custom_plan",
                # Every query uses an index, and its pages are in memory most of the time. With
                # the default, meant for spinning disks, a batch reads a whole table of some ten
                # thousand jobs to find a hundred.
                "random_page_cost": "1.1",
                **own,
            },
        ),
    )

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.run_async(partial(_prepare, seconds=seconds))

    return engine


async def _prepare(connection: "PostgresqlConnection", *, seconds: float | None) -> None:
    """Make a connection ready for its first statement."""
    connection.commit_seconds = seconds
    await connection.catch_up(seconds)
    await _use_text_for_ids(connection)


async def _use_text_for_ids(connection: "PostgresqlConnection") -> None:
    """Have the driver take and return ids as the domain has them."""
    await connection.set_type_codec(
        "uuid",
        schema="pg_catalog",
        encoder=lambda text: bytes.fromhex(text.replace("-", "")),
        decoder=_uuid_text,
        format="binary",
    )


def _uuid_text(data: bytes) -> str:
    digits = data.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _check_certificates(parameters: Mapping[str, Any]) -> None:
    """Raise BadDatabaseUrl unless the files for TLS can be used.

    The driver reads them when it connects, and its errors do not name them.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    password = parameters.get("sslpassword", "")
    uses: Mapping[str, Callable[[str], None]] = {
        "sslrootcert": context.load_verify_locations,
        "sslcrl": context.load_verify_locations,
        "sslcert": lambda file: context.load_cert_chain(
            file, parameters.get("sslkey"), lambda: password
        ),
    }
    for name, use in uses.items():
        if not (file := parameters.get(name)):
            continue
        try:
            use(file)
        except (OSError, ValueError) as error:
            cause = error.strerror if isinstance(error, OSError) else str(error)
            raise BadDatabaseUrl(f"cannot use {name}={file} of the database URL: {cause}") from None
