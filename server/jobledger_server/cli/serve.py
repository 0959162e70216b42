"""`jobledger-server serve`."""

import asyncio
import signal
import sys
from typing import Any

import click

from jobledger_server.app import open_app
from jobledger_server.cli.options import database_options, settings_options
from jobledger_server.cli.running import expected_errors, run
from jobledger_server.database.url import parse_url
from jobledger_server.runtime import parent
from jobledger_server.runtime.descriptors import open_standard_files, raise_descriptor_limit
from jobledger_server.runtime.garbage import keep_collections_short
from jobledger_server.runtime.notify import report_ready
from jobledger_server.runtime.processes import serve_with_processes
from jobledger_server.runtime.signals import end_signals
from jobledger_server.runtime.supervision import ServerFailed
from jobledger_server.settings import Settings
from jobledger_server.telemetry.logs import logging_to_stderr


@click.command()
@database_options
@click.option("--child", metavar="NUMBER", type=int, hidden=True)  # for processes.py
@settings_options
def serve(child: int | None, url_schemes: tuple[str, ...], **options: Any) -> None:
    """Serve until SIGTERM or SIGINT, for production.

    It then drains and exits with 0, also when its terminal is closed.

    An SQLite database is migrated first. A PostgreSQL database has to be migrated before,
    with `jobledger-server migrate`.
    """
    open_standard_files()
    raise_descriptor_limit()
    settings = Settings(
        url_schemes=frozenset(url_schemes), shares_port=child is not None, **options
    )
    with logging_to_stderr(settings.log_level, **({} if child is None else {"child": child})):
        if settings.processes > 1 and child is None:
            with expected_errors():
                _check_several_processes(settings)
                sys.exit(serve_with_processes(settings))
        run(lambda: _serve(settings))


def _check_several_processes(settings: Settings) -> None:
    if parse_url(settings.database).get_backend_name() == "sqlite":
        raise click.BadParameter(
            "an SQLite file is for one process: leave it at 1, or use PostgreSQL",
            param_hint="--processes",
        )
    if settings.listen.startswith("unix:"):
        raise click.BadParameter(
            "several processes share a port, not a socket file", param_hint="--processes"
        )


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Files are about to be read. Without a handler the signal would end the process.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    ends = end_signals()
    for received in ends:
        loop.add_signal_handler(received, stop.set)
    if settings.shares_port:
        parent.on_exit(stop.set)
    async with open_app(settings, stop=stop) as app:
        if signal.SIGHUP not in ends:
            loop.add_signal_handler(signal.SIGHUP, app.reload)
        keep_collections_short()
        if settings.shares_port:
            parent.report_serving()
        else:
            report_ready()
        either = [asyncio.create_task(event.wait()) for event in (stop, app.failed)]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if app.failed.is_set():
        raise ServerFailed("a part of the server failed with an unexpected error; see the log")
