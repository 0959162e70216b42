"""The service, as the gateway calls it: messages in and out, with the client's own retries.

The core of the Python client does the rest: its channel, errors and watches that reconnect, so
that a browser does not see when the service's server stops, or another one takes over.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum, auto
from functools import partial
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from jobledger.core.aio.base import AsyncCalls
from jobledger.core.channels import AsyncConnection
from jobledger.core.feed_watch import Feed
from jobledger.core.job_watch import JobStream
from jobledger.core.options import CallOptions, Headers, WatchOptions
from jobledger.core.reconnecting import Reconnecting
from jobledger.core.requests import fresh_id
from jobledger.core.streams import AsyncWatch
from jobledger.core.tracing import trace_headers
from jobledger.core.webhook_events import TERMINAL
from jobledger.errors import JobledgerError, Unavailable
from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2
from jobledger.v1 import job_service_pb2, queue_service_pb2
from jobledger.v1.job_service_pb2 import (
    CreateJobRequest,
    WatchJobRequest,
    WatchJobResponse,
    WatchJobsRequest,
    WatchJobsResponse,
    WatchOutputRequest,
    WatchOutputResponse,
)
from jobledger_gateway.metrics import FIGURES

Read: TypeAlias = Callable[[type[Message], bytes], Awaitable[Message]]
"""Reads a message of a class."""

HEALTH_SECONDS: Final = 3.0
"""How long the service may take to say whether it serves."""

_SERVICES: Final[Mapping[str, ServiceDescriptor]] = {
    name: service
    for file in (job_service_pb2, queue_service_pb2, webhook_delivery_service_pb2)
    for name, service in file.DESCRIPTOR.services_by_name.items()
}


class Sign(Enum):
    """What a watch yields besides messages."""

    ALIVE = auto()
    """The service has answered, and there is no news."""
    RESET = auto()
    """The service refused the resume token; a new listing follows."""


def request_class(rpc: str) -> type[Message]:
    """Return the class of the requests of an RPC, as `JobService.GetJob`."""
    return GetMessageClass(_method(rpc).input_type)


def response_class(rpc: str) -> type[Message]:
    """Return the class of its answers."""
    return GetMessageClass(_method(rpc).output_type)


def _path(rpc: str) -> str:
    method = _method(rpc)
    return f"/{method.containing_service.full_name}/{method.name}"


def _method(rpc: str) -> MethodDescriptor:
    service, _, name = rpc.partition(".")
    return _SERVICES[service].methods_by_name[name]


class Upstream(AsyncCalls):
    """Calls the service. A call's own `authorization` replaces the gateway's token."""

    async def call(self, rpc: str, request: Message, headers: Headers) -> Message:
        """Make a unary call. Raises JobledgerError."""
        return response_class(rpc).FromString(await self.call_unread(rpc, request, headers))

    async def call_unread(self, rpc: str, request: Message, headers: Headers) -> bytes:
        """Make a unary call; return its answer as it arrives. Raises JobledgerError."""

        def method(connection: AsyncConnection) -> Any:
            return connection.channel.unary_unary(
                _path(rpc), request_serializer=type(request).SerializeToString
            )

        if isinstance(request, CreateJobRequest) and not request.request_id:
            request.request_id = fresh_id()  # the call may be repeated
        try:
            answer: bytes = await self._call(method, request, {"metadata": headers})
        except JobledgerError as error:
            count_error(error)
            raise
        return answer

    async def check_health(self) -> None:
        """Return if the service says that it serves. Raises JobledgerError."""

        def method(connection: AsyncConnection) -> Any:
            return HealthStub(connection.channel).Check

        options: CallOptions = {"timeout": HEALTH_SECONDS}
        answer: HealthCheckResponse = await self._call(
            method, HealthCheckRequest(), options, once=True
        )
        if answer.status != HealthCheckResponse.SERVING:
            status = HealthCheckResponse.ServingStatus.Name(answer.status)
            raise Unavailable(f"the service is {status}", code=grpc.StatusCode.UNAVAILABLE)

    def watch_job(
        self, request: WatchJobRequest, options: WatchOptions, read: Read | None = None
    ) -> AsyncWatch[WatchJobResponse | Sign]:
        """Watch a job until its terminal state; `read` reads its messages."""

        def opened(connection: AsyncConnection, request: WatchJobRequest, headers: Headers) -> Any:
            if read is None:
                return connection.jobs.WatchJob(request, metadata=headers)
            return _stream(connection, "JobService.WatchJob", request, headers, read)

        return self._watch(opened, partial(_JobMessages, request), options)

    def watch_jobs(
        self, request: WatchJobsRequest, options: WatchOptions, read: Read | None = None
    ) -> AsyncWatch[WatchJobsResponse | Sign]:
        """Watch many jobs, without an end; `read` reads their messages."""

        def opened(connection: AsyncConnection, request: WatchJobsRequest, headers: Headers) -> Any:
            if read is None:
                return connection.jobs.WatchJobs(request, metadata=headers)
            return _stream(connection, "JobService.WatchJobs", request, headers, read)

        return self._watch(opened, partial(_FeedMessages, request, relist=True), options)

    def watch_output(
        self, request: WatchOutputRequest, options: WatchOptions
    ) -> AsyncWatch[WatchOutputResponse]:
        """Watch a stream of a job's output until nothing can follow."""

        def opened(
            connection: AsyncConnection, request: WatchOutputRequest, headers: Headers
        ) -> Any:
            return connection.jobs.WatchOutput(request, metadata=headers)

        return self._watch(opened, partial(_OutputMessages, request), options)

    async def close(self) -> None:
        """Close the connections."""
        await self._close()

    async def _headers(self, metadata: Headers, seconds: float | None) -> Headers:
        if any(key == "authorization" for key, _ in metadata):
            return (*metadata, *trace_headers(metadata))
        return await super()._headers(metadata, seconds)


def count_error(error: JobledgerError) -> None:
    """Count an error of the service that ended a call or a watch."""
    FIGURES.upstream_errors[error.code.name] += 1


def _stream(
    connection: AsyncConnection, rpc: str, request: Message, headers: Headers, read: Read
) -> "_Stream":
    open_call: Any = connection.channel.unary_stream(
        _path(rpc), request_serializer=type(request).SerializeToString
    )
    return _Stream(open_call(request, metadata=headers), partial(read, response_class(rpc)))


class _Stream:
    """A call with a stream of answers, as gRPC's, whose messages are read by a coroutine."""

    __slots__ = ("_call", "_read", "cancel")

    def __init__(self, call: Any, read: Callable[[bytes], Awaitable[Message]]) -> None:
        self._call = call
        self._read = read
        self.cancel: Callable[[], object] = call.cancel

    async def read(self) -> Any:
        data = await self._call.read()
        return data if data is grpc.aio.EOF else await self._read(data)


class _JobMessages(JobStream["WatchJobResponse | Sign"]):
    """Yields the messages that are news, until the job is terminal."""

    def accept(self, response: WatchJobResponse) -> Sequence[WatchJobResponse | Sign]:
        if response.heartbeat:
            self.received(progress=True)
            return (Sign.ALIVE,)
        is_new = response.job.version > self._seen
        self.received(progress=is_new)
        # Delivered whatever its version, as to the Python client: nothing comes after it.
        self.ended = response.job.status in TERMINAL
        if not is_new and not self.ended:
            return (Sign.ALIVE,)
        self._seen = response.job.version
        return (response,)


class _FeedMessages(Feed["WatchJobsResponse | Sign"]):
    """Resumes after the last token; says when it had to begin again."""

    def __init__(self, request: WatchJobsRequest, **limits: Any) -> None:
        super().__init__(request, **limits)
        self._synced = False
        self._reset = False

    def accept(self, response: WatchJobsResponse) -> Sequence[WatchJobsResponse | Sign]:
        self._record(response)
        signs = (Sign.RESET,) if self._reset else ()
        self._reset = False
        # Each stream sends `synced`. Only the first one is news.
        if response.synced and self._synced:
            response.heartbeat = True
        self._synced = self._synced or response.synced
        return (*signs, response)

    def _list_again(self) -> None:
        super()._list_again()
        self._synced = False
        self._reset = True


class _OutputMessages(Reconnecting[WatchOutputRequest, WatchOutputResponse, WatchOutputResponse]):
    """Resumes after the last byte; yields each message."""

    def __init__(self, request: WatchOutputRequest, **limits: Any) -> None:
        super().__init__(**limits)
        self._request = request
        self._begun = False

    def opens(self) -> None:
        super().opens()
        self._begun = False

    def request(self) -> WatchOutputRequest:
        return self._request

    def accept(self, response: WatchOutputResponse) -> Sequence[WatchOutputResponse]:
        self.received(progress=self._begun or bool(response.data) or response.closed)
        self._begun = True
        request = WatchOutputRequest()
        request.CopyFrom(self._request)
        request.after_offset = response.next_offset
        self._request = request
        self.ended = response.closed
        return (response,)

    def name(self) -> str:
        return f"output of job {self._request.job_id}"
