"""Runs the gateway on a socket: with uvicorn, whose signals are ours."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from jobledger_gateway.app import make_app
from jobledger_gateway.connections import Connection
from jobledger_gateway.followed_files import (
    FollowedFiles,
    ServerCertificate,
    follow,
    server_context,
)
from jobledger_gateway.handshakes import BACKLOG, accept
from jobledger_gateway.limits import MAX_HEAD
from jobledger_gateway.metrics import FIGURES
from jobledger_gateway.settings import Network, Settings
from jobledger_gateway.webhooks.deliverer import deliver

DRAIN_SECONDS = 10


SILENCE_MS = 60_000
"""How long a client may take no byte of what it is sent."""

PROBE_SECONDS = 60
"""Silence after which a client that is sent nothing is asked whether it is still there."""


def bind(host: str, port: int, silence_ms: int = SILENCE_MS) -> socket.socket:
    """Bind a listening socket, whose connections end when their clients read nothing or vanish.

    The kernel ends them (Linux only): if the gateway closed one, what it has sent would have to be
    read first. And a browser that connects in advance, and vanishes before its first request, is
    sent nothing.

    Args:
        host: a name or an address.
        port: 0 for a free one.
        silence_ms: how long a client may take no byte of what it is sent.

    Raises:
        OSError: the address cannot be had.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_ms)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_SECONDS)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def hide_query(record: logging.LogRecord) -> bool:
    """Take the query from a line of uvicorn's access log: it may have a watch token."""
    if isinstance(record.args, tuple):
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True


logging.getLogger("uvicorn.access").addFilter(hide_query)


async def serve(
    settings: Settings,
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    started: Callable[[], object] = lambda: None,
    files: Sequence[FollowedFiles] = (),
    reload: asyncio.Event | None = None,
    certificate: tuple[str, str] | None = None,
) -> None:
    """Serve on a bound socket until `stop` is set; then end the streams and the other requests.

    Args:
        settings: the gateway's.
        listener: the socket, which is closed at the end.
        stop: ends it.
        started: called when it serves.
        files: read again when they change. So are those of `certificate`.
        reload: has them read again at once.
        certificate: the files of a certificate chain and its key, to serve HTTPS.
    """
    tls = None
    if certificate is not None:
        tls = server_context(*certificate)
        files = (*files, ServerCertificate(tls, *certificate).files)
    FIGURES.files = files
    app = make_app(settings)
    config = uvicorn.Config(
        app,
        http="jobledger_gateway.connections:Connection",
        h11_max_incomplete_event_size=MAX_HEAD,
        lifespan="on",
        log_config=None,
        access_log=settings.access_log,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=[*_trusted(settings.proxies)],
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = _Server(config, started, tls)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    delivering = asyncio.create_task(_deliver(settings))
    following = asyncio.create_task(follow(files, reload or asyncio.Event()))
    accepting = asyncio.create_task(server.accept(listener, settings.head_timeout))
    try:
        tasks = {serving, stopping, delivering, following, accepting}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        following.cancel()
        delivering.cancel()
        accepting.cancel()
        app.state.limits.drain()
        server.should_exit = True
        await serving
        # A bug of one of these ends the process: else nobody would see that it has stopped.
        with contextlib.suppress(asyncio.CancelledError):
            await delivering
        with contextlib.suppress(asyncio.CancelledError):
            await following
        with contextlib.suppress(asyncio.CancelledError):
            await accepting


def _trusted(proxies: Iterable[Network]) -> Iterator[str]:
    for network in proxies:
        yield str(network)
        if network.version == 4:  # noqa: PLR2004
            # The same over a socket for IPv6, which --listen [::]:8080 opens.
            yield f"::ffff:{network.network_address}/{96 + network.prefixlen}"


async def _deliver(settings: Settings) -> None:
    if settings.webhooks is None:
        await asyncio.Event().wait()
    else:
        await deliver(
            settings.webhooks,
            settings.target,
            settings.credentials,
            settings.timeout,
            tls_server_name=settings.tls_server_name,
        )


class _Server(uvicorn.Server):
    """uvicorn's server. With TLS it is given no socket: `accept` gives it its connections."""

    def __init__(
        self, config: uvicorn.Config, started: Callable[[], object], tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(config)
        self._report = started
        self._tls = tls
        self._has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            for each in sockets or []:
                each.settimeout(0)
                each.listen(BACKLOG)
        if self.started:
            self._has_started.set()
            self._report()

    async def accept(self, listener: socket.socket, timeout: float) -> None:  # noqa: ASYNC109
        """Accept connections over TLS, until this is cancelled; see `handshakes.accept`."""
        await self._has_started.wait()
        if self._tls is None:
            await asyncio.Event().wait()  # uvicorn does it
        else:
            await accept(listener, self._tls, timeout, self._connection)

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # The process's owner handles them: uvicorn would raise them again at its end.
        yield
