"""`jobledger-server dev`: everything that a developer needs, in one process and its child."""

import asyncio
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from jobledger_server.app import open_app
from jobledger_server.cli.options import database_options
from jobledger_server.cli.running import run
from jobledger_server.runtime.descriptors import open_standard_files, raise_descriptor_limit
from jobledger_server.runtime.gateway_process import (
    Gateway,
    GatewayFailed,
    is_gateway_installed,
    running_gateway,
)
from jobledger_server.runtime.port import PortUnavailable
from jobledger_server.runtime.supervision import ServerFailed
from jobledger_server.settings import Settings
from jobledger_server.telemetry.logs import logging_to_stderr

HOST = "127.0.0.1"

PARAMETERS = '{"name": "Ada"}'
"""What `examples/hello_worker.py` needs, which the README starts next."""

WORK = """for n in 20 40 60 80; do sleep 1; echo "{\\"progress\\": $n}"; done"""

INSTALL = "pip install 'jobledger[web]'"


def _port_option(
    flag: str, default: int, what: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        flag,
        type=click.IntRange(0, 65535),
        metavar="PORT",
        default=default,
        show_default=True,
        help=f"Port of {what}, on {HOST}. With 0 a free one is chosen.",
    )


@click.command()
@_port_option("--port", 50051, "the service")
@_port_option("--web-port", 8080, "the page and the HTTP API")
@click.option(
    "--cors-origin",
    "origins",
    metavar="ORIGIN",
    multiple=True,
    help="The origin of an application of yours whose pages may call the HTTP API, as "
    "http://127.0.0.1:8000. Repeat it for several.",
)
@database_options
def dev(
    port: int,
    web_port: int,
    origins: tuple[str, ...],
    database: str,
    database_file: Path | None,
) -> None:
    """Serve everything for a developer, until Ctrl-C.

    That is the service with gRPC reflection, and the page with the HTTP API, on this machine only.
    The jobs are kept in the file jobledger.db of the current folder. It also ends when its terminal
    is closed.
    """
    open_standard_files()
    raise_descriptor_limit()
    settings = Settings(
        database=database,
        database_file=database_file,
        listen=f"{HOST}:{port}",
        reflection=True,
    )
    with logging_to_stderr("warning"):
        run(lambda: _dev(settings, web_port, origins))


async def _dev(settings: Settings, web_port: int, origins: Sequence[str]) -> None:
    stop = asyncio.Event()
    for received in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(received) is not signal.SIG_IGN:  # nohup
            asyncio.get_running_loop().add_signal_handler(received, stop.set)
    try:
        async with (
            open_app(settings, stop=stop) as app,
            _gateway(app.address, web_port, origins) as gateway,
        ):
            click.echo(summary(settings.database, app.address, gateway))
            ends: list[Coroutine[Any, Any, object]] = [stop.wait(), app.failed.wait()]
            if gateway is not None:
                ends.append(gateway.process.wait())
            await asyncio.wait(map(asyncio.create_task, ends), return_when=asyncio.FIRST_COMPLETED)
    except PortUnavailable as error:
        raise click.ClickException(f"{error}: choose another port with --port") from None
    if app.failed.is_set():
        raise ServerFailed("a part of the server failed with an unexpected error; see the log")
    if not stop.is_set():
        raise click.ClickException("jobledger-gateway has ended")


@asynccontextmanager
async def _gateway(target: str, port: int, origins: Sequence[str]) -> AsyncIterator[Gateway | None]:
    if not is_gateway_installed():
        yield None
        return
    _check_free(port)
    try:
        async with running_gateway(target, f"{HOST}:{port}", origins) as gateway:
            yield gateway
    except GatewayFailed as error:
        raise click.ClickException(str(error)) from None


def _check_free(port: int) -> None:
    """Raise click.ClickException if a port is taken, before the gateway finds it out."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise click.ClickException(
                f"cannot listen on {HOST}:{port}: {error.strerror}: "
                "choose another port with --web-port"
            ) from None


def summary(database: str, address: str, gateway: Gateway | None) -> str:
    """Return what listens where, and three commands to try."""
    page = f"http://{HOST}:{gateway.port}" if gateway else f"none: {INSTALL} brings it"
    file = database.removeprefix("sqlite:///")
    lines = [
        "Jobledger serves, until Ctrl-C.",
        "",
        f"  page  {page}",
        f"  gRPC  {address}, with reflection",
        f"  jobs  {'the database' if '://' in file else file}",
        "",
    ]
    command = _command(address)
    if command is None:
        return "\n".join([*lines, f"{INSTALL} brings the command `jobledger`, too."])
    return "\n".join(
        [
            *lines,
            "Try it in other terminals: create a job, watch all jobs, and work on them.",
            "",
            f"  {command} create greet --user ada --parameters '{PARAMETERS}'",
            f"  {command} top --user ada",
            f"  {command} worker exec greet -- sh -c '{WORK}'",
        ]
    )


def _command(address: str) -> str | None:
    """Return how a shell in this folder calls `jobledger` for this server; None: it cannot."""
    own = Path(sys.executable).with_name("jobledger")
    if not own.exists() or find_spec("rich") is None:
        return None
    found = shutil.which("jobledger")
    if found is not None and Path(found).resolve() == own.resolve():
        name = "jobledger"
    else:
        here = Path.cwd()
        name = str(own.relative_to(here) if own.is_relative_to(here) else own)
    return name if address == f"{HOST}:50051" else f"{name} --server {address}"
