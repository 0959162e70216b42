"""The options of a channel to the service: keepalive, reconnects, sizes."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import grpc

Option: TypeAlias = tuple[str, str | int]
CurrentCredentials: TypeAlias = Callable[[], grpc.ChannelCredentials | None]
"""Returns the present credentials, which may change."""
Interceptor: TypeAlias = (
    grpc.UnaryUnaryClientInterceptor
    | grpc.UnaryStreamClientInterceptor
    | grpc.StreamStreamClientInterceptor
)
AsyncInterceptor: TypeAlias = grpc.aio.ClientInterceptor

CHANNEL_OPTIONS: Final[Sequence[Option]] = (
    # Finds a dead peer in 40 s. Without data to send, grpc would stop after the second ping.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Recent versions have a timeout for any ping, a minute by default, which takes precedence.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted server is found within two seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A claim is bounded to 3 MiB by the service, and any other answer by less than 4.
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    ("grpc.primary_user_agent", "jobledger-python"),
)
"""What Client and AsyncClient open their channels with; for a channel that you make yourself."""

OWN_CONNECTION: Final[Option] = ("grpc.use_local_subchannel_pool", 1)


def server_name_options(name: str | None) -> Sequence[Option]:
    """Return the options of a channel whose servers' certificates have this name."""
    return () if name is None else (("grpc.ssl_target_name_override", name),)


def check_target(target: str) -> None:
    """Raise ValueError for an address that gRPC would look up for ever."""
    if not target:
        raise ValueError("target: is empty; give HOST:PORT")
    if target.startswith(("http://", "https://")):
        raise ValueError(f"target: {target!r} is a URL; give HOST:PORT")


def open_channel(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    interceptors: Sequence[Interceptor] = (),
    *options: Option,
) -> grpc.Channel:
    """Open a channel for blocking code."""
    options = (*CHANNEL_OPTIONS, *options)
    if credentials is None:
        channel = grpc.insecure_channel(target, options)
    else:
        channel = grpc.secure_channel(target, credentials, options)
    return grpc.intercept_channel(channel, *interceptors)


def open_async_channel(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    interceptors: Sequence[AsyncInterceptor] = (),
    *options: Option,
) -> grpc.aio.Channel:
    """Open a channel for asyncio, in the running event loop."""
    options = (*CHANNEL_OPTIONS, *options)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options, interceptors=interceptors)
    return grpc.aio.secure_channel(target, credentials, options, interceptors=interceptors)
