"""One unary call, with its failure as a JobledgerError."""

import asyncio
from collections.abc import Awaitable
from typing import Protocol, TypeVar

import grpc

from jobledger.core.channels import AsyncChannels, Channels, channel_closed, closed_channel_of
from jobledger.core.options import Headers
from jobledger.errors import from_rpc_error

RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class AsyncMethod(Protocol[RequestT_contra, ResponseT_co]):
    """A unary method of a stub, for asyncio."""

    def __call__(
        self, request: RequestT_contra, /, *, timeout: float | None, metadata: Headers
    ) -> Awaitable[ResponseT_co]: ...


class Method(Protocol[RequestT_contra, ResponseT_co]):
    """A unary method of a stub, for blocking code."""

    def __call__(
        self, request: RequestT_contra, /, *, timeout: float | None, metadata: Headers
    ) -> ResponseT_co: ...


async def call_async(
    channels: AsyncChannels,
    method: AsyncMethod[_Request, _Response],
    request: _Request,
    *,
    target: str,
    timeout: float | None,  # noqa: ASYNC109
    metadata: Headers,
) -> _Response:
    """Make one call. Raises JobledgerError."""
    try:
        return await method(request, timeout=timeout, metadata=metadata)
    except grpc.RpcError as error:
        connected = channels.state() is grpc.ChannelConnectivity.READY
        raise from_rpc_error(error, target=target, timeout=timeout, connected=connected) from error
    except (asyncio.CancelledError, grpc.aio.UsageError) as error:
        # A channel that is closed cancels its calls: the same error as of a cancelled task.
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        channels.check()
        raise channel_closed() from error


def call(
    channels: Channels,
    method: Method[_Request, _Response],
    request: _Request,
    *,
    target: str,
    timeout: float | None,
    metadata: Headers,
) -> _Response:
    """Make one call. Raises JobledgerError."""
    try:
        return method(request, timeout=timeout, metadata=metadata)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.CANCELLED:
            channels.check()
        late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        connected = not late or channels.state() is grpc.ChannelConnectivity.READY
        raise from_rpc_error(error, target=target, timeout=timeout, connected=connected) from error
    except ValueError as error:
        channels.check()
        raise closed_channel_of(error) from error
