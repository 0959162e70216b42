"""One unary call, with its failure as a JobledgerError."""

import asyncio
import time
from collections.abc import Awaitable, Callable
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


def now_async() -> float:
    """Return the event loop's time, in seconds."""
    return asyncio.get_running_loop().time()


def now() -> float:
    """Return the monotonic clock of blocking code, in seconds."""
    return time.monotonic()


async def call_async(
    channels: AsyncChannels,
    method: AsyncMethod[_Request, _Response],
    request: _Request,
    *,
    target: str,
    timeout: float | None,  # noqa: ASYNC109
    headers: Callable[[float | None], Awaitable[Headers]],
) -> _Response:
    """Make one call; the timeout is also for its headers. Raises JobledgerError."""
    began = now_async()
    metadata = await headers(timeout)
    left = None if timeout is None else timeout - (now_async() - began)
    try:
        return await method(request, timeout=left, metadata=metadata)
    except grpc.RpcError as error:
        connected = channels.state() is grpc.ChannelConnectivity.READY
        raise from_rpc_error(
            error,
            target=target,
            timeout=timeout,
            connected=connected,
            request_id=_request_id(request),
        ) from error
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
    headers: Callable[[float | None], Headers],
) -> _Response:
    """Make one call; the timeout is also for its headers. Raises JobledgerError."""
    began = now()
    metadata = headers(timeout)
    left = None if timeout is None else timeout - (now() - began)
    try:
        return method(request, timeout=left, metadata=metadata)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.CANCELLED:
            channels.check()
        raise from_rpc_error(
            error, target=target, timeout=timeout, request_id=_request_id(request)
        ) from error
    except ValueError as error:
        channels.check()
        raise closed_channel_of(error) from error


def _request_id(request: object) -> str:
    return str(getattr(request, "request_id", ""))
