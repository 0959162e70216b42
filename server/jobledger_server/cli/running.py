"""Runs commands: with uvloop if it is installed, and with expected errors as one line of text."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import click

from jobledger_server.rpc.access import BadAccessFile
from jobledger_server.runtime.port import PortUnavailable
from jobledger_server.runtime.supervision import ServerFailed
from jobledger_server.sql.database_url import BadDatabaseUrl
from jobledger_server.sql.schema import SchemaError
from jobledger_server.sql.sqlite.file_lock import DatabaseInUse
from jobledger_server.store import StoreFault, StoreUnavailable
from jobledger_server.telemetry.metrics import MetricsUnavailable

_EXPECTED = (
    BadAccessFile,
    BadDatabaseUrl,
    DatabaseInUse,
    MetricsUnavailable,
    PortUnavailable,
    SchemaError,
    ServerFailed,
    StoreFault,
    StoreUnavailable,
)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end. Raises click.ClickException for an expected error."""
    with expected_errors(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work())


@contextmanager
def expected_errors() -> Iterator[None]:
    """Turn errors that an operator can fix into a message and exit code 1."""
    try:
        yield
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    return uvloop.new_event_loop
