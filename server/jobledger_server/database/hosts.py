"""Connects to PostgreSQL, to whichever host of a URL takes the connection.

asyncpg tries the hosts of a URL in turn, with one time limit for all of them. A host that is silent
would hide those after it.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import urlencode

import asyncpg
from sqlalchemy import URL

from jobledger_server.database.errors import cause_of, is_outage
from jobledger_server.database.url import hosts_of

STAGGER_SECONDS = 0.25
"""After so long without an answer of one host the next one is tried as well, as RFC 8305
recommends."""

Connection: TypeAlias = "asyncpg.Connection[Any]"
Host = tuple[str | None, int | None]


class NoPrimary(ConnectionError):
    """No host of the URL takes connections as a primary; the message says what each one does."""


async def connect(url: URL, *, seconds: float, **settings: Any) -> Connection:
    """Connect to the first host that answers and fits `target_session_attrs`.

    Each host is tried by itself: the next one if the one before has failed, or has not answered
    for a short time. The attempts that are not needed any more are ended.

    Args:
        url: The database, from `parse_url`.
        seconds: The time limit for all hosts together.
        settings: Other arguments of `asyncpg.connect`.

    Raises:
        NoPrimary: None of several hosts can be used, or one is not what the URL demands.
        Exception: What asyncpg raised for the only host, or for one that refuses the user or the
            database.
    """
    left = list(hosts_of(url))
    pause = min(STAGGER_SECONDS, seconds / len(left) / 2)
    attempts: dict[asyncio.Task[Connection], Host] = {}
    failed: dict[Host, BaseException] = {}
    try:
        async with asyncio.timeout(seconds):
            while left or attempts:
                if left:
                    host = left.pop(0)
                    attempt = _connect(url, host, timeout=seconds, **settings)
                    attempts[asyncio.create_task(attempt)] = host
                done, _ = await asyncio.wait(
                    attempts,
                    timeout=pause if left else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    host = attempts.pop(task)
                    if (error := task.exception()) is None:
                        return task.result()
                    failed[host] = error
    except TimeoutError as late:
        failed.update(dict.fromkeys(attempts.values(), late))
    finally:
        for task in attempts:
            task.cancel()
            task.add_done_callback(_close)
    raise _reason(failed)


async def _connect(url: URL, host: Host, **settings: Any) -> Connection:
    others = {name: value for name, value in url.query.items() if name not in ("host", "port")}
    connection: Connection = await asyncpg.connect(
        # The driver reads parameters as libpq does, but only from a URL.
        f"postgresql://?{urlencode(others)}" if others else None,
        host=host[0],
        port=host[1],
        user=url.username,
        password=url.password,
        database=url.database,
        **settings,
    )
    return connection


def _close(attempt: asyncio.Task[Connection]) -> None:
    """Close what an attempt has opened although another one was faster."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


def _reason(failed: Mapping[Host, BaseException]) -> BaseException:
    """Return the error that says most about why no host could be used."""
    for error in failed.values():
        # It says what to correct.
        if not is_outage(error):
            return error
    if len(failed) == 1 and not isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return error
    states = "; ".join(f"{_name(host)}: {_state(error)}" for host, error in failed.items())
    return NoPrimary(f"no host is a primary ({states})")


def _name(host: Host) -> str:
    name, port = host
    return f"{name or 'the default host'}{f':{port}' if port else ''}"


def _state(error: BaseException) -> str:
    match error:
        case asyncpg.TargetServerAttributeNotMatched():
            return "a standby, or read-only"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
        case _:
            return cause_of(error)
