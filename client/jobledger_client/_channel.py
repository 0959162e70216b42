"""How a channel to the service behaves: retries, keepalive, reconnects, the token."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

import grpc

StubT = TypeVar("StubT")

# Every unary RPC but ClaimJobs is safe to repeat, because the client always sends a
# request_id with what creates and a worker_id with what starts; delete_job and
# transition_job say what a repetition after a lost answer can look like. The
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
            ],
            "retryPolicy": _RETRY_POLICY,
        },
        # The more specific entry wins: watches have their own loop (_follow.py),
        # which knows where to resume.
        {
            "name": [
                {"service": "jobledger.v1.JobService", "method": "WatchJob"},
                {"service": "jobledger.v1.JobService", "method": "WatchJobs"},
            ]
        },
        # A claim whose answer was lost may have taken jobs; repeated, it would take
        # more than its caller has room for.
        {"name": [{"service": "jobledger.v1.WorkerService", "method": "ClaimJobs"}]},
        # Only _reports.py knows which reports of a broken stream to send again.
        {"name": [{"service": "jobledger.v1.WorkerService", "method": "ReportProgress"}]},
    ],
    # No retryThrottling: its largest bucket stops all retries after 500 failed
    # attempts, so 200 calls in flight did not survive a restart. What protects a
    # server is that five attempts are the most, and that only UNAVAILABLE is
    # retried: an overloaded one says RESOURCE_EXHAUSTED.
}

CHANNEL_OPTIONS: Final[Sequence[tuple[str, str | int]]] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # A request that does not fit this buffer is not retried; the default of
    # 256 KiB is less than the largest parameters.
    ("grpc.per_rpc_retry_buffer_size", 2 * 1024 * 1024),
    # Finds a dead peer in 40 s. The server allows a ping every 10 s; without
    # data to send, grpc would stop after the second one.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Recent versions have a limit for every ping, a minute by default, and it counts.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted server is found within two seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.primary_user_agent", "jobledger-python"),
)
"""What Client and AsyncClient open their channels with; for channels of one's own."""

OWN_CONNECTION: Final = ("grpc.use_local_subchannel_pool", 1)

WATCHES_PER_CONNECTION: Final = 50
"""A connection has 100 streams by default, and a call beyond them would wait for a watch to end."""


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, *options: tuple[str, int]
) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(target, (*CHANNEL_OPTIONS, *options))
    return grpc.secure_channel(target, credentials, (*CHANNEL_OPTIONS, *options))


def open_async_channel(
    target: str, credentials: grpc.ChannelCredentials | None, *options: tuple[str, int]
) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(target, (*CHANNEL_OPTIONS, *options))
    return grpc.aio.secure_channel(target, credentials, (*CHANNEL_OPTIONS, *options))


class WatchStubs(Generic[StubT]):
    """The stubs that a client's watches use. As they fill up, `another` opens a channel.

    Without it all watches use the first one. May be used by several threads.
    """

    def __init__(
        self,
        first: StubT,
        stub_on: Callable[[Any], StubT],
        another: Callable[[], Any] | None,
    ) -> None:
        self.opened: list[Any] = []
        """For the client to close."""
        self._stub_on = stub_on
        self._another = another
        self._watches = {first: 0}
        self._lock = threading.Lock()

    @contextmanager
    def stub(self) -> Iterator[StubT]:
        """Count a watch on a stub until the block ends."""
        with self._lock:
            stub = min(self._watches, key=self._watches.__getitem__)
            if self._watches[stub] >= WATCHES_PER_CONNECTION and self._another is not None:
                self.opened.append(self._another())
                stub = self._stub_on(self.opened[-1])
                self._watches[stub] = 0
            self._watches[stub] += 1
        try:
            yield stub
        finally:
            with self._lock:
                self._watches[stub] -= 1


def call_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Build the metadata of every call."""
    if token is None:
        return ()
    if not token or not all("!" <= character <= "~" for character in token):
        raise ValueError("token: visible ASCII characters only, at least one")
    return (("authorization", f"Bearer {token}"),)
