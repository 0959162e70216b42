# Generated from core/aio by scripts/generate_sync_client.py. Do not edit.
"""What the calls of one Client share: its connections, timeouts, token and metadata."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import grpc

from jobledger.core.calls import Method, call, repeatable
from jobledger.core.channel import (
    OWN_CONNECTION,
    CurrentCredentials,
    Interceptor,
    Option,
    check_target,
    open_channel,
    server_name_options,
)
from jobledger.core.channels import Channels, Connection
from jobledger.core.conversion import Seconds
from jobledger.core.heartbeats import Beats
from jobledger.core.identity import Identity
from jobledger.core.options import (
    DEFAULT,
    CallOptions,
    Default,
    Headers,
    Metadata,
    OnError,
    Timeout,
    WatchOptions,
    check_names,
    headers_of,
    seconds_of,
)
from jobledger.core.reconnecting import EventT, Reconnecting, RequestT, ResponseT
from jobledger.core.streams import Call, Callbacks, Stop, Watch, follow
from jobledger.core.system_roots import system_roots
from jobledger.core.tokens import Token, bearer, check_token
from jobledger.core.tracing import trace_headers

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Calls:
    """Makes calls for Client."""

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        user_id: str | None = None,
        tls: bool = False,
        credentials: CurrentCredentials | grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        timeout: Seconds | None = 10.0,
        connect_timeout: Seconds | None = 10.0,
        metadata: Metadata = (),
        interceptors: Sequence[Interceptor] = (),
        channel: grpc.Channel | None = None,
        tls_server_name: str | None = None,
    ) -> None:
        self._target = target
        check_target(target)
        if channel is not None and interceptors:
            raise ValueError("interceptors: give them to the channel that you make")
        if tls and (credentials is not None or channel is not None):
            raise ValueError("tls: does not go with credentials or a channel")
        if tls:
            credentials = grpc.ssl_channel_credentials(system_roots())
        if tls_server_name is not None and (channel is not None or credentials is None):
            raise ValueError("tls_server_name: needs tls or credentials")
        check_token(token)
        self._identity = Identity(user_id)
        self._token = token
        self._timeout = seconds_of(timeout, "timeout")
        self._connect_timeout = seconds_of(connect_timeout, "connect_timeout")
        self._metadata = headers_of(metadata)
        self._closed = threading.Event()

        name = server_name_options(tls_server_name)

        def current() -> grpc.ChannelCredentials | None:
            return credentials() if callable(credentials) else credentials

        def connect(*options: Option) -> Connection:
            opened = open_channel(target, current(), interceptors, *options, *name)
            return Connection(opened)

        if channel is None:
            self._channels = Channels(connect, partial(connect, OWN_CONNECTION), current)
        else:
            # Its stubs are made at once: making them of a closed channel would crash Python.
            connection = Connection(channel)
            self._channels = Channels(lambda: connection, None)

    def _call(
        self,
        method: Callable[[Connection], Method[_Request, _Response]],
        request: _Request,
        options: CallOptions,
        *,
        extra: float = 0.0,
        once: bool = False,
    ) -> _Response:
        check_names(options, CallOptions)
        timeout = self._limit(options.get("timeout", DEFAULT), self._timeout, "timeout")
        with repeatable(request):
            return call(
                self._channels,
                method(self._channels.connection()),
                request,
                target=self._target,
                timeout=None if timeout is None else timeout + extra,
                headers=partial(self._headers, headers_of(options.get("metadata", ()))),
                closed=self._closed,
                once=once,
            )

    def _watch(
        self,
        open_call: Callable[[Connection, RequestT, Headers], Call[ResponseT]],
        watch: Callable[..., Reconnecting[RequestT, ResponseT, EventT]],
        options: WatchOptions,
        *,
        timeout: Seconds | None = None,
        on_gap: OnError | None = None,
        add_heartbeats: Beats[EventT] | None = None,
    ) -> Watch[EventT]:
        check_names(options, WatchOptions)
        connect_timeout = options.get("connect_timeout", DEFAULT)
        begin = partial(
            watch,
            connect_timeout=self._limit(connect_timeout, self._connect_timeout, "connect_timeout"),
            reconnect_timeout=seconds_of(options.get("reconnect_timeout"), "reconnect_timeout"),
            timeout=seconds_of(timeout, "timeout"),
            renews_token=self.renews_token,
        )
        stop = Stop()
        events = follow(
            self._channels,
            open_call,
            begin,
            stop,
            headers=partial(self._headers, headers_of(options.get("metadata", ()))),
            target=self._target,
            closed=self._closed,
            callbacks=Callbacks(on_gap, options),
        )
        if add_heartbeats is not None:
            events = add_heartbeats(events, stop)
        return Watch(events, stop)

    @property
    def target(self) -> str:
        """The address of the service, as it was given."""
        return self._target

    @property
    def renews_token(self) -> bool:
        """Whether a function returns the token, so that a later call may have another one."""
        return callable(self._token)

    def _headers(self, metadata: Headers, seconds: float | None) -> Headers:
        given = (*self._metadata, *metadata)
        return (*bearer(self._token, seconds), *given, *trace_headers(given))

    def _checked(self, options: CallOptions) -> CallOptions:
        """Check the options of several calls before the first; metadata may be an iterator."""
        check_names(options, CallOptions)
        self._limit(options.get("timeout", DEFAULT), None, "timeout")
        return {**options, "metadata": headers_of(options.get("metadata", ()))}

    @staticmethod
    def _limit(given: Timeout, default: float | None, name: str) -> float | None:
        return default if isinstance(given, Default) else seconds_of(given, name)

    def _close(self) -> None:
        self._closed.set()
        self._channels.close()
