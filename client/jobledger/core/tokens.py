"""The bearer token of each call: a text, or a function that returns the current one."""

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc

from jobledger.core.options import Headers
from jobledger.errors import Unavailable

Token: TypeAlias = str | Callable[[], str]
AsyncToken: TypeAlias = str | Callable[[], str | Awaitable[str]]


def check_token(token: AsyncToken | None) -> None:
    """Raise ValueError or TypeError unless this can be a token."""
    if token is not None and not callable(token):
        _header(token)


async def bearer_async(token: AsyncToken | None) -> Headers:
    """Return the header of one call; empty without a token. Raises Unavailable."""
    if token is None:
        return ()
    try:
        current = token() if callable(token) else token
        return _header(await current if inspect.isawaitable(current) else current)
    except OSError as error:
        raise _unavailable(error) from error


def bearer(token: Token | None) -> Headers:
    """Return the header of one call; empty without a token. Raises Unavailable."""
    if token is None:
        return ()
    try:
        return _header(token() if callable(token) else token)
    except OSError as error:
        raise _unavailable(error) from error


def _unavailable(error: OSError) -> Unavailable:
    text = f"there is no token at present: {error}"
    return Unavailable(text, code=grpc.StatusCode.UNAVAILABLE)


def _header(token: str) -> Headers:
    if not isinstance(token, str):
        raise TypeError(f"token: {type(token).__name__} is not a str")
    if not token or not all("!" <= character <= "~" for character in token):
        raise ValueError("token: visible ASCII characters only, at least one")
    return (("authorization", f"Bearer {token}"),)
