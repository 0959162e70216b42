"""The command line of the gateway."""

import asyncio
import ipaddress
import logging
import signal
import socket
from typing import Any
from urllib.parse import urlsplit

import click

from jobledger.cli.connection import Connection
from jobledger_gateway.serving import bind, serve
from jobledger_gateway.settings import Settings

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

log = logging.getLogger("jobledger.gateway")


def _address(_: click.Context, __: click.Parameter, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 2**16):
        raise click.BadParameter(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _origins(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    for text in given:
        parts = urlsplit(text)
        if parts.scheme not in {"http", "https"} or text != f"{parts.scheme}://{parts.netloc}":
            raise click.BadParameter(f"{text!r} is not an origin, as https://app.example")
    return given


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--target",
    metavar="HOST:PORT",
    default="127.0.0.1:50051",
    show_default=True,
    envvar="JOBLEDGER_GATEWAY_TARGET",
    show_envvar=True,
    help="The address of the Jobledger service.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    show_default=True,
    callback=_address,
    envvar="JOBLEDGER_GATEWAY_LISTEN",
    show_envvar=True,
    help="The address to serve HTTP at. With port 0 a free one is chosen and logged.",
)
@click.option(
    "--cors-origin",
    "origins",
    metavar="ORIGIN",
    multiple=True,
    callback=_origins,
    help="An origin whose pages may call this gateway from a browser, as https://app.example.",
)
@click.option("--token-file", metavar="FILE", help="For requests without a token of their own.")
@click.option("--tls/--no-tls", default=None, help="Encrypt the connection to the service.")
@click.option("--ca-file", metavar="FILE", help="The CA certificates to trust, in PEM.")
@click.option("--cert", metavar="FILE", help="The gateway's certificate for the service, in PEM.")
@click.option("--key", metavar="FILE", help="That certificate's key, in PEM.")
@click.version_option(package_name="jobledger")
def gateway(target: str, listen: tuple[str, int], origins: tuple[str, ...], **given: Any) -> None:
    """Serve Jobledger over HTTP: a JSON API, live events for browsers, and a page.

    A client of the Jobledger service at --target, which has to run already. It keeps no state: run
    any number of them.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    layer = {name: value for name, value in given.items() if value is not None}
    connection = Connection.of([layer])
    try:
        listener = bind(*listen)
    except OSError as error:
        raise click.ClickException(f"cannot listen at {listen[0]}:{listen[1]}: {error}") from None
    settings = Settings(
        target=target,
        credentials=connection.credentials,
        token=connection.token,
        origins=origins,
        hosts=LOOPBACK_NAMES if _is_loopback(listener) else (),
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, listener))


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


async def _serve(settings: Settings, listener: socket.socket) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host

    def started() -> None:
        log.info("serving http://%s:%d for the service at %s", name, port, settings.target)

    await serve(settings, listener, stop, started=started)


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    return uvloop.new_event_loop
