"""The command line of the gateway."""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from jobledger.cli.connection import Connection
from jobledger.cli.times import duration
from jobledger.core.channel import check_target
from jobledger.core.connection_options import TokenFile
from jobledger.core.status_server import parse_address
from jobledger_gateway.followed_files import FollowedFiles, RenewedCredentials, server_context
from jobledger_gateway.logs import log_to_stderr
from jobledger_gateway.metrics import serving_metrics
from jobledger_gateway.notify import report_ready
from jobledger_gateway.own_health import NotReady, check_own_health
from jobledger_gateway.serving import bind, serve
from jobledger_gateway.settings import Network, Settings, WebhookSettings
from jobledger_gateway.webhooks.addresses import PRIVATE, is_permitted

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")

SWITCH_SECONDS: Final = 0.0005
"""How long a thread runs while another one waits. Python's default is ten times as much."""

_DEFAULTS: Final = Settings()
_WEBHOOKS: Final = WebhookSettings()

log = logging.getLogger("jobledger.gateway")


def _listen(_: click.Context, __: click.Parameter, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 2**16):
        raise click.BadParameter(f"{text!r} is not HOST:PORT, with a port from 0 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _address(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    try:
        if text is not None:
            parse_address(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return text


def _collector(_: click.Context, __: click.Parameter, url: str | None) -> str | None:
    if url is not None and urlsplit(url).scheme not in {"http", "https"}:
        raise click.BadParameter(f"{url!r} is not a URL, as http://127.0.0.1:4317")
    if url is not None and find_spec("opentelemetry") is None:
        raise click.BadParameter("OpenTelemetry needs its libraries: pip install 'jobledger[otel]'")
    return url


def _origins(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    for text in given:
        parts = urlsplit(text)
        named = parts.scheme in {"http", "https"} and parts.netloc
        if not named or text != f"{parts.scheme}://{parts.netloc}".lower():
            raise click.BadParameter(f"{text!r} is not an origin, as https://app.example")
    return given


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _private_network(text: str) -> Network:
    network = _network(text)
    ends = (network.network_address, network.broadcast_address)
    if not any(all(is_permitted(end, [each]) for end in ends) for each in PRIVATE):
        raise click.BadParameter(f"{text!r} is in none of {', '.join(map(str, PRIVATE))}")
    return network


def _seconds(text: str) -> float:
    seconds = duration(text).total_seconds()
    if seconds <= 0:
        raise click.BadParameter(f"{text!r} must be longer")
    return seconds


def _option(*names: str, **attributes: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return an option that an environment variable can give, too."""
    flag = names[0].removeprefix("--").partition("/")[0]
    variable = f"JOBLEDGER_GATEWAY_{flag.upper().replace('-', '_')}"
    shown = attributes.get("default") is not None
    return click.option(*names, envvar=variable, show_envvar=True, show_default=shown, **attributes)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@_option(
    "--target",
    metavar="HOST:PORT",
    default="127.0.0.1:50051",
    help="The address of the Jobledger service.",
)
@_option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    callback=_listen,
    help="The address to serve HTTP at. With port 0 the gateway chooses a free port and logs it. "
    "Off loopback it needs --tls-cert or --insecure.",
)
@_option(
    "--cors-origin",
    "origins",
    metavar="ORIGIN",
    multiple=True,
    callback=_origins,
    help="An origin whose pages may call this gateway from a browser, as https://app.example. "
    "Repeat it for several; in the variable, separate them by spaces.",
)
@_option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="A name that requests may address this gateway by: others are refused. On loopback "
    "its own names always may. Repeat it for several.  [default: on loopback those, else any]",
)
@_option(
    "--proxy",
    "proxies",
    metavar="ADDRESS",
    type=_network,
    multiple=True,
    help="The address of a proxy in front of the gateway, or a network of proxies as 10.1.0.0/16, "
    "whose X-Forwarded-For says who calls. Repeat it for several.",
)
@_option(
    "--token-file",
    metavar="FILE",
    help="A file with a bearer token for requests that bring none; read for each call. Whoever "
    "reaches the gateway can then do what the token permits.",
)
@_option("--tls/--no-tls", default=None, help="Encrypt the connection to the service.")
@_option(
    "--ca-file",
    metavar="FILE",
    help="The CA certificates to trust for the service, instead of the system's; PEM.",
)
@_option("--cert", metavar="FILE", help="The gateway's certificate chain for the service; PEM.")
@_option("--key", metavar="FILE", help="The key of --cert; PEM.")
@_option(
    "--tls-server-name",
    metavar="NAME",
    help="The name in the certificates of the service's servers, if --target is not it: for a "
    "list of servers, as ipv4:10.1.0.1:50051,10.1.0.2:50051.",
)
@_option("--tls-cert", metavar="FILE", help="The certificate chain to serve HTTPS with; PEM.")
@_option("--tls-key", metavar="FILE", help="The key of --tls-cert, without a password; PEM.")
@_option(
    "--insecure/--no-insecure",
    help="Serve off loopback without TLS: behind a proxy that encrypts connections.",
)
@_option(
    "--max-streams",
    type=click.IntRange(1),
    default=_DEFAULTS.max_streams,
    help="Open event streams at most. Each takes about 60 KiB.",
)
@_option(
    "--max-client-streams",
    type=click.IntRange(1),
    default=_DEFAULTS.max_client_streams,
    help="Open event streams of one client at most: of one address with the same token.",
)
@_option(
    "--max-address-streams",
    type=click.IntRange(1),
    default=_DEFAULTS.max_address_streams,
    help="Open event streams of one address at most, with any tokens. It may have twice as many "
    "connections.",
)
@_option(
    "--access-log/--no-access-log",
    default=True,
    help="Log each request, without the query of its URL.",
)
@_option(
    "--metrics",
    metavar="HOST:PORT",
    callback=_address,
    help="Serve metrics for Prometheus at http://HOST:PORT/metrics, without authentication.",
)
@_option(
    "--otlp",
    metavar="URL",
    callback=_collector,
    help="Send spans to this OpenTelemetry collector over gRPC, for example http://127.0.0.1:4317. "
    "Needs the extra `otel`.",
)
@_option(
    "--webhooks/--no-webhooks",
    help="Deliver webhooks. Any number of gateways may: they share them.",
)
@_option(
    "--webhooks-only/--no-webhooks-only",
    help="Deliver webhooks, and serve nothing but /healthz, so that deliveries take no time from "
    "browsers: they have other gateways.",
)
@_option(
    "--webhook-token-file",
    metavar="FILE",
    help="A file with the bearer token of an operator, to deliver webhooks with; read for each "
    "call. Needed if the service has an access file.",
)
@_option(
    "--webhook-allow-network",
    "webhook_networks",
    metavar="CIDR",
    type=_private_network,
    multiple=True,
    help="A private network that webhooks may be delivered in, as 10.1.0.0/16: else only public "
    "addresses are called. http is for these networks only. Repeat it for several.",
)
@_option(
    "--webhook-give-up",
    metavar="DURATION",
    type=_seconds,
    default="3d",
    help="How long a delivery is tried again. If none has succeeded for that long, the webhook is "
    "disabled.",
)
@_option(
    "--webhook-max-backoff",
    metavar="DURATION",
    type=_seconds,
    default="1h",
    help="The longest pause between two attempts.",
)
@click.option("--child", is_flag=True, hidden=True)  # of `jobledger-server dev`
@click.version_option(package_name="jobledger")
@click.pass_context
def gateway(
    context: click.Context,
    /,
    *,
    target: str,
    listen: tuple[str, int],
    hosts: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    insecure: bool,
    webhooks: bool,
    webhook_token_file: str | None,
    webhook_networks: tuple[Network, ...],
    webhook_give_up: float,
    webhook_max_backoff: float,
    child: bool,
    **options: Any,
) -> None:
    """Serve Jobledger over HTTP: a JSON API, live events for browsers, and a page.

    It is a client of the Jobledger service at --target, which has to run already: start one with
    `jobledger-server serve`. It keeps no state, so any number of gateways may serve one service.
    It ends at SIGTERM or SIGINT: browsers connect again, to another one or to the next. At SIGHUP
    it reads its certificates again; it also does when their files have changed.

    The API is described at /openapi.json. A request's header Authorization is passed on to the
    service, which decides what its caller may do.
    """
    if context.invoked_subcommand is not None:
        return
    try:
        check_target(target)
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None
    log_to_stderr(logging.WARNING if child else logging.INFO)
    names = ("token_file", "tls", "ca_file", "cert", "key", "tls_server_name")
    layer = {name: value for name in names if (value := options.pop(name)) is not None}
    connection = Connection.of([layer])
    ca, cert, key = (
        Path(layer[name]) if name in layer else None for name in ("ca_file", "cert", "key")
    )
    credentials = RenewedCredentials(ca, cert, key, lambda: Connection.of([layer]).credentials)
    certificate = _certificate(tls_cert, tls_key)
    _raise_descriptor_limit()
    listener = _bound(*listen)
    is_loopback = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
    if not (is_loopback or certificate or insecure):
        raise click.UsageError(
            "--listen: off loopback give --tls-cert and --tls-key, or --insecure behind a proxy"
            " that encrypts connections"
        )
    try:
        token = None if webhook_token_file is None else TokenFile(Path(webhook_token_file))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    delivery = WebhookSettings(
        token=token,
        networks=webhook_networks,
        first_backoff=min(_WEBHOOKS.first_backoff, webhook_max_backoff),
        max_backoff=webhook_max_backoff,
        give_up=webhook_give_up,
    )
    settings = Settings(
        webhooks=delivery if webhooks or options["webhooks_only"] else None,
        target=target,
        credentials=credentials,
        tls_server_name=connection.tls_server_name,
        token=connection.token,
        hosts=(*hosts, *LOOPBACK_NAMES) if is_loopback else hosts,
        **options,
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, listener, certificate, credentials.files, child=child))


@gateway.command()
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer.",
)
@click.pass_context
def health(context: click.Context, timeout: float) -> None:
    """Print whether a gateway on this machine is ready; exit with 0 if it is.

    It is ready if it serves and the service answers. It is found by its own options or their
    variables: `jobledger-gateway --listen 0.0.0.0:8080 health`. Its own certificate is trusted.
    """
    assert context.parent is not None  # noqa: S101
    options = context.parent.params
    host, port = options["listen"]
    cert = None if options["tls_cert"] is None else Path(options["tls_cert"])
    try:
        check_own_health(host, port, cert, timeout)
    except NotReady as error:
        raise click.ClickException(str(error)) from None
    click.echo("SERVING")


def _certificate(cert: str | None, key: str | None) -> tuple[str, str] | None:
    """Return the files of a certificate that can be used. Raises click.ClickException."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise click.UsageError("--tls-cert and --tls-key go together: give both")
    try:
        server_context(cert, key)
    except OSError as error:
        raise click.UsageError(f"--tls-cert {cert}, --tls-key {key}: {error}") from None
    return cert, key


def _bound(host: str, port: int) -> socket.socket:
    try:
        return bind(host, port)
    except OSError as error:
        reason = error.strerror or error
        raise click.ClickException(f"--listen: cannot serve at {host}:{port}: {reason}") from None


def _raise_descriptor_limit() -> None:
    """Allow as many sockets as the system permits."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(
    settings: Settings,
    listener: socket.socket,
    certificate: tuple[str, str] | None,
    files: FollowedFiles,
    *,
    child: bool,
) -> None:
    loop, stop, reload = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # A terminal sends it when it is closed. Elsewhere it asks that files are read again.
    loop.add_signal_handler(signal.SIGHUP, (stop if _on_terminal() else reload).set)
    # As in the server: what exists now lives as long as the process, so that no collection has to
    # visit it; and a full one would stop all streams for long.
    gc.freeze()
    gc.set_threshold(2_000, 20, 1_000)
    # While a thread converts a large message, the event loop waits that long at each step.
    sys.setswitchinterval(SWITCH_SECONDS)
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    url = f"http{'s' if certificate else ''}://{name}:{port}"

    def started() -> None:
        log.info("serving url=%s target=%s", url, settings.target)
        if child:
            # Standard input is a socket of the parent's. It becomes readable when that ends.
            os.write(0, f"{port}".encode())
            loop.add_reader(0, parent_ended)
        else:
            report_ready()

    def parent_ended() -> None:
        loop.remove_reader(0)
        stop.set()

    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(serving_metrics(settings.metrics))
        except OSError as error:
            reason = error.strerror or error
            raise click.ClickException(
                f"--metrics: cannot serve at {settings.metrics}: {reason}"
            ) from None
        await serve(
            settings,
            listener,
            stop,
            started=started,
            files=[files],
            reload=reload,
            certificate=certificate,
        )


def _on_terminal() -> bool:
    """Whether standard input or error is the terminal that controls this process."""
    for number in (0, 2):
        with contextlib.suppress(OSError):
            os.tcgetpgrp(number)
            return True
    return False


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    return uvloop.new_event_loop
