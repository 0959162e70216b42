"""The options of a channel to the service: retries, keepalive, reconnects, sizes."""

import json
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

# Every unary RPC but ClaimJobs is safe to repeat, because the client
# always sends a request_id with what creates and a worker_id with what starts; delete_job and
# transition_job say what a repetition after a lost answer returns. The
# pauses add up to about four seconds, the time that a restart takes, within the
# default deadline of ten.
_RETRY_POLICY: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "3s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}

_SERVICE_CONFIG: Final = {
    "methodConfig": [
        {
            "name": [
                {"service": "jobledger.v1.JobService"},
                {"service": "jobledger.v1.WorkerService"},
                {"service": "jobledger.v1.QueueService"},
                {"service": "jobledger.v1.WebhookService"},
                {"service": "jobledger.internal.v1alpha1.WebhookDeliveryService"},  # the gateway's
            ],
            "retryPolicy": _RETRY_POLICY,
        },
        # The more specific entry wins: watches have their own loop (streams.py),
        # which knows where to resume.
        {
            "name": [
                {"service": "jobledger.v1.JobService", "method": "WatchJob"},
                {"service": "jobledger.v1.JobService", "method": "WatchJobs"},
            ]
        },
        # A claim whose answer was lost may have claimed jobs; repeated, it would
        # claim more than its caller has free slots.
        {"name": [{"service": "jobledger.v1.WorkerService", "method": "ClaimJobs"}]},
        # Only work_stream.py knows which updates of a broken stream to send again.
        {"name": [{"service": "jobledger.v1.WorkerService", "method": "Work"}]},
    ],
    # No retryThrottling: its largest bucket stops all retries after 500 failed
    # attempts, so 200 calls in flight did not survive a restart. A server is protected
    # by the limit of five attempts, and because only UNAVAILABLE is retried: an
    # overloaded server answers RESOURCE_EXHAUSTED.
}

CHANNEL_OPTIONS: Final[Sequence[Option]] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # A request that does not fit this buffer is not retried; the default of
    # 256 KiB is less than the largest parameters.
    ("grpc.per_rpc_retry_buffer_size", 2 * 1024 * 1024),
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
