"""The bearer token of each call: a text, or a function that returns the current one."""

import asyncio
import concurrent.futures
import contextvars
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import grpc

from jobledger.core.options import Headers
from jobledger.errors import DeadlineExceeded, Unavailable

Token: TypeAlias = str | Callable[[], str]
AsyncToken: TypeAlias = str | Callable[[], str | Awaitable[str]]


def check_token(token: AsyncToken | None) -> None:
    """Raise ValueError or TypeError unless this can be a token."""
    if token is not None and not callable(token):
        _header(token)


async def bearer_async(token: AsyncToken | None, seconds: float | None) -> Headers:
    """Return the header of one call; empty without a token.

    Args:
        token: as the client was given it.
        seconds: that a function may take; None: any time.

    Raises:
        Unavailable: the function raised OSError.
        DeadlineExceeded: it took too long.
    """
    if token is None:
        return ()
    limit = asyncio.timeout(seconds)
    began = time.monotonic()
    try:
        async with limit:
            current = token() if callable(token) else token
            header = _header(await current if inspect.isawaitable(current) else current)
    except OSError as error:
        raise (_late(seconds) if limit.expired() else _unavailable(error)) from error
    # A plain function cannot be interrupted here, and a loop's own clock may stand still in it.
    if seconds is not None and time.monotonic() - began > seconds:
        raise _late(seconds)
    return header


def bearer(token: Token | None, seconds: float | None) -> Headers:
    """Return the header of one call; see `bearer_async`."""
    if token is None:
        return ()
    if not callable(token):
        return _header(token)
    # Only in a thread can it be left behind if it is slow.
    called: concurrent.futures.Future[str] = concurrent.futures.Future()
    call = partial(contextvars.copy_context().run, _settle, called, token)
    if seconds is None:
        call()
    else:
        threading.Thread(target=call, name="jobledger-token", daemon=True).start()
        concurrent.futures.wait({called}, seconds)
        if not called.done():
            raise _late(seconds)
    try:
        return _header(called.result())
    except OSError as error:
        raise _unavailable(error) from error


def _settle(called: "concurrent.futures.Future[str]", token: Callable[[], str]) -> None:
    try:
        called.set_result(token())
    except BaseException as error:  # noqa: BLE001
        called.set_exception(error)


def _late(seconds: float | None) -> DeadlineExceeded:
    text = f"the token function has not returned within {seconds:g} s"
    return DeadlineExceeded(text, code=grpc.StatusCode.DEADLINE_EXCEEDED)


def _unavailable(error: OSError) -> Unavailable:
    text = f"there is no token at present: {error}"
    return Unavailable(text, code=grpc.StatusCode.UNAVAILABLE)


def _header(token: str) -> Headers:
    if not isinstance(token, str):
        raise TypeError(f"token: {type(token).__name__} is not a str")
    if not token or not all("!" <= character <= "~" for character in token):
        raise ValueError("token: visible ASCII characters only, at least one")
    return (("authorization", f"Bearer {token}"),)
