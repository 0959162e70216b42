"""One unary call: repeated through a short outage, with its failure as a JobledgerError.

Every call but ClaimJobs without `holding` and AppendOutput without `number` is safe to repeat,
because the client always sends a request_id with what creates and a worker_id with what starts;
delete_job and transition_job say what a repetition after a lost answer returns. gRPC's own retries
would do for this, but when a deadline passes between two of them, nobody learns what the service
had answered.
"""

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

import grpc

from jobledger.core.channels import AsyncChannels, Channels, channel_closed, closed_channel_of
from jobledger.core.options import Headers
from jobledger.core.retry import wait_at_most
from jobledger.errors import JobledgerError, from_rpc_error, out_of_time

RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

PAUSES: Final = (0.1, 0.3, 0.9, 2.7)
"""Seconds before each repetition. Together they are about the time that a restart takes."""

_JITTER: Final = 0.2


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
    closed: asyncio.Event,
    once: bool,
) -> _Response:
    """Make one call. Raises JobledgerError.

    Args:
        channels: the client's.
        method: the method of a stub.
        request: its request, the same each time.
        target: the server's address, for errors.
        timeout: seconds for all: the headers, the repetitions and the pauses.
        headers: returns the metadata; called once.
        closed: set when the client is closed: that ends a pause.
        once: whether the call is not repeated, though the service is unavailable.
    """
    began = now_async()
    metadata = await headers(timeout)
    refusal: JobledgerError | None = None
    pauses = _pauses(once=once)
    while True:
        left = None if timeout is None else timeout - (now_async() - began)
        try:
            return await method(request, timeout=left, metadata=metadata)
        except grpc.RpcError as error:
            failure = from_rpc_error(
                error,
                target=target,
                timeout=timeout,
                connected=channels.state() is grpc.ChannelConnectivity.READY,
                refusal=refusal,
            )
            pause = _pause(failure, pauses)
            if pause is None:
                raise failure from error
            refusal = failure
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            # A channel that is closed cancels its calls: the same error as of a cancelled task.
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            channels.check()
            raise channel_closed() from error
        left = None if timeout is None else timeout - (now_async() - began)
        await wait_at_most(_at_most(pause, left), closed)
        channels.check()
        if left is not None and left <= pause:
            raise out_of_time(refusal, target=target, timeout=timeout)


def call(
    channels: Channels,
    method: Method[_Request, _Response],
    request: _Request,
    *,
    target: str,
    timeout: float | None,
    headers: Callable[[float | None], Headers],
    closed: threading.Event,
    once: bool,
) -> _Response:
    """Make one call; see call_async. Raises JobledgerError."""
    began = now()
    metadata = headers(timeout)
    refusal: JobledgerError | None = None
    pauses = _pauses(once=once)
    while True:
        left = None if timeout is None else timeout - (now() - began)
        try:
            return method(request, timeout=left, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.CANCELLED:
                channels.check()
            failure = from_rpc_error(
                error,
                target=target,
                timeout=timeout,
                refusal=refusal,
            )
            pause = _pause(failure, pauses)
            if pause is None:
                raise failure from error
            refusal = failure
        except ValueError as error:
            channels.check()
            raise closed_channel_of(error) from error
        left = None if timeout is None else timeout - (now() - began)
        closed.wait(_at_most(pause, left))
        channels.check()
        if left is not None and left <= pause:
            raise out_of_time(refusal, target=target, timeout=timeout)


def _pauses(*, once: bool) -> Iterator[float]:
    return iter(() if once else PAUSES)


def _pause(failure: JobledgerError, pauses: Iterator[float]) -> float | None:
    """Return the seconds until the call is repeated; None if it is not."""
    pause = next(pauses, None) if failure.code is grpc.StatusCode.UNAVAILABLE else None
    return None if pause is None else pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311


def _at_most(pause: float, left: float | None) -> float:
    return pause if left is None else max(0.0, min(pause, left))


@contextmanager
def repeatable(request: object) -> Iterator[None]:
    """Give each error of a call the request id to repeat it with."""
    try:
        yield
    except JobledgerError as error:
        asset = getattr(request, "asset", None)  # its request id is its own
        error.request_id = getattr(request, "request_id", "") or getattr(asset, "request_id", "")
        raise
