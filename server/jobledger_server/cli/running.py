"""Runs commands: with uvloop if it is installed, and with expected errors as one line of text."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from jobledger_server.database.file_lock import DatabaseInUse
from jobledger_server.database.url import BadDatabaseUrl
from jobledger_server.rpc.access.access_file import BadAccessFile
from jobledger_server.rpc.serving.admin import AdminUnavailable
from jobledger_server.runtime.port import PortUnavailable, Unprotected
from jobledger_server.runtime.stopping import Stopped
from jobledger_server.runtime.supervision import ServerFailed
from jobledger_server.runtime.tls import BadCertificate
from jobledger_server.sql.schema import SchemaError
from jobledger_server.store import StoreFault, StoreUnavailable
from jobledger_server.telemetry.prometheus import MetricsUnavailable

_EXPECTED = (
    AdminUnavailable,
    BadAccessFile,
    BadCertificate,
    BadDatabaseUrl,
    DatabaseInUse,
    MetricsUnavailable,
    PortUnavailable,
    SchemaError,
    ServerFailed,
    StoreFault,
    StoreUnavailable,
    Unprotected,
)


ATTEMPTS = 50
"""How often a task that remains at the end is cancelled."""

ATTEMPT_SECONDS = 0.1


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end. Raises click.ClickException for an expected error."""
    with (
        expected_errors(),
        suppress(Stopped),
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_and_end_tasks(work()))


async def _and_end_tasks(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    finally:
        await end_tasks()


async def end_tasks() -> Collection[asyncio.Task[Any]]:
    """Cancel all other tasks until they end; return those that do not.

    One cancellation may not be enough: during it a task can await something that never happens,
    as a connection of aiosqlite does after its thread has ended. asyncio would wait for it
    indefinitely.
    """
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(ATTEMPTS):
        if not others:
            break
        for task in others:
            task.cancel()
        _, others = await asyncio.wait(others, timeout=ATTEMPT_SECONDS)
    return others


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
