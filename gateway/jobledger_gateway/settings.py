"""What a gateway is run with."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

from jobledger.core.channel import CurrentCredentials
from jobledger_gateway.limits import HEAD_SECONDS

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_BODY = 1024 * 1024
"""Bytes of a request's body at most."""

MAX_SKIPPED = 8 * MAX_BODY
"""Bytes of a longer body that are read and forgotten. Otherwise the connection would be reset, and
its client might not see the refusal."""

MAX_TOKEN = 4 * 1024
MAX_TRACE = 1024
"""Bytes of the header Authorization, and of each of a trace, that are passed on. gRPC refuses some
of the calls whose headers together have more than 8 KiB."""

PAGE = Path(__file__).with_name("page")
"""The page that the package brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """How webhooks are delivered. Times are in seconds.

    Attributes:
        token: the bearer token to claim webhooks and to read the jobs of all owners with; or a
            function that returns the current one.
        networks: private networks that deliveries may go to, too.
        first_backoff: before the second attempt; it doubles with each.
        max_backoff: between two attempts at most, also if the receiver asks for more.
        give_up: after that long without a success a delivery is given up.
        timeout: of one attempt.
        poll: between two claims.
        save: between two times that the state of a webhook is stored.
        end: how long attempts that are under way at the end may take. With the time to release the
            webhooks it is no longer than that for requests.
        at_once: attempts at once. One whose receiver is silent takes a place for `timeout`.
        at_once_each: of these, those of one owner; the webhooks of all users are one owner's.
    """

    token: str | Callable[[], str] | None = None
    networks: tuple[Network, ...] = ()
    first_backoff: float = 5.0
    max_backoff: float = 3600.0
    give_up: float = 3 * 86400.0
    timeout: float = 15.0
    poll: float = 5.0
    save: float = 1.0
    end: float = 7.0
    at_once: int = 512
    at_once_each: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a gateway. Times are in seconds.

    Attributes:
        target: HOST:PORT of the service.
        credentials: for TLS to the service; or a function that returns the current ones.
        tls_server_name: the name in its servers' certificates, if `target` is not it.
        token: the gateway's own bearer token, for requests that bring none; or a function that
            returns the current one.
        timeout: how long one call to the service may take, and how long a watch may take to begin.
        origins: whose pages may call besides the gateway's own, as `https://app.example`.
        hosts: the names that a request may address the gateway by; empty for any. A name without
            a port stands for any port.
        max_streams: open event streams at most.
        max_client_streams: of these, those of one client: an address and its credentials.
        max_address_streams: of these, those of one address.
        heartbeat: silence after which an event stream sends a comment.
        head_timeout: how long the head of a connection's next request may take.
        read_timeout: how long a request's body may take.
        access_log: whether each request is logged, without the query of its URL.
        proxies: the addresses whose `X-Forwarded-For` is believed.
        webhooks: how webhooks are delivered; None if not at all.
        metrics: HOST:PORT to serve metrics at; None for nowhere.
        webhooks_only: whether nothing else is served but health.
        otlp: the URL of the collector that spans are sent to; None for none.
        page: the folder with the page's files.
    """

    target: str = "127.0.0.1:50051"
    credentials: CurrentCredentials | grpc.ChannelCredentials | None = None
    tls_server_name: str | None = None
    token: str | Callable[[], str] | None = None
    timeout: float = 10.0
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    max_streams: int = 10_000
    max_client_streams: int = 100
    max_address_streams: int = 500
    heartbeat: float = 15.0
    head_timeout: float = HEAD_SECONDS
    read_timeout: float = 30.0
    access_log: bool = True
    proxies: tuple[Network, ...] = ()
    webhooks: WebhookSettings | None = None
    metrics: str | None = None
    webhooks_only: bool = False
    otlp: str | None = None
    page: Path = PAGE

    @property
    def max_connections(self) -> int:
        """Connections at most: two for each event stream, so that there is room for others."""
        return 2 * self.max_streams + 100

    @property
    def max_address_connections(self) -> int:
        """Connections of one address at most."""
        return 2 * min(self.max_address_streams, self.max_streams) + 50
