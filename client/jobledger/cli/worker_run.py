"""`jobledger worker run MODULE:WORKER`: run a worker of a Python module."""

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from jobledger import JobledgerError
from jobledger.cli.connection import Connection
from jobledger.cli.options import Command, pass_connection

if TYPE_CHECKING:
    from jobledger.worker.worker import Worker

PATIENCE: Final = 1.0
"""Seconds that running jobs have before a reload releases them."""


@click.command(cls=Command)
@click.argument("target", metavar="MODULE:WORKER")
@click.option("--reload", is_flag=True, help="Start again when a Python file below here changes.")
@pass_connection
def run(connection: Connection, *, target: str, reload: bool) -> None:
    """Run a worker that a Python module defines.

    \b
        jobledger worker run tasks:worker

    MODULE is imported from the current folder, or from where Python finds it. WORKER is a
    jobledger.Worker in it, or a function that returns one. One that was made without a client
    uses this command's connection.

    On SIGTERM or SIGINT the worker claims no more jobs. It releases those that do not finish in
    its grace, and another worker starts them again.
    """  # noqa: D301  # click's mark of a paragraph that stays as it is
    if reload:
        asyncio.run(_run_and_reload())
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)

    async def work() -> None:
        worker = load(target)
        if worker.has_client:
            await worker.run(signals=True)
        else:
            async with connection.open_async(all_users=True) as client:
                await worker.run(client=client, signals=True)

    try:
        asyncio.run(work())
    except (JobledgerError, click.ClickException):
        raise
    except Exception:
        # Of the module's own code, its lifespan for instance.
        traceback.print_exc()
        raise


def load(target: str) -> "Worker":
    """Import a worker. Raises click.UsageError."""
    # See worker_command.py.
    from jobledger.worker.worker import Worker  # noqa: PLC0415

    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise click.UsageError(f"{target!r} is not MODULE:WORKER")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), name, None)
        if callable(found):
            found = found()
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            traceback.print_exc()
        raise click.UsageError(str(error)) from None
    except Exception as error:  # noqa: BLE001  # whatever the module does
        traceback.print_exc()
        raise click.UsageError(f"{target} cannot be loaded: {error}") from None
    if not isinstance(found, Worker):
        raise click.UsageError(f"{module_name} has no Worker {name!r}")
    return found


async def _run_and_reload() -> None:
    """Run this command without --reload in a process; start it again whenever a file changes."""
    # Loads anyio, which no other command needs.
    from watchfiles import PythonFilter, awatch  # noqa: PLC0415

    command = [sys.executable, "-m", "jobledger"]
    command += [argument for argument in sys.argv[1:] if argument != "--reload"]
    # Without this, a file that changes twice in a second and keeps its size would run unchanged.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    changes = awatch(Path.cwd(), watch_filter=PythonFilter(), stop_event=stopped)
    running = True
    while running:
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        try:
            running = await anext(changes, None) is not None
        finally:
            await _end(process)
        if running:
            click.echo("reloading", err=True)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the worker; its second signal ends the grace."""
    for _ in range(2):
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await process.wait()
    await process.wait()
