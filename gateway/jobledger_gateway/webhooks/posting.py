"""Posts to a URL over HTTP/1.1: one request, on a connection of its own, without redirects.

h11 reads and writes the protocol. A general client would look the host up again, after its
address was checked.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

import h11

from jobledger_gateway.webhooks.addresses import Address, Forbidden, Resolver

MAX_HEADER_BYTES: Final = 16 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024
READ_BYTES: Final = 16 * 1024
REST_SECONDS: Final = 1.0
"""How long the body of an answer may take after its status."""

# What a URL may have in its path and query as it is.
_SAFE: Final = "%/:=&?~+!$,;'@()*[]"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt.

    Attributes:
        status: the HTTP status; None without an answer.
        failure: why it has failed; empty if it has not.
        retry_after: seconds that the receiver asked to wait, if it did.
    """

    status: int | None = None
    failure: str = ""
    retry_after: float | None = None


class Poster:
    """Posts. It says no more of a receiver than its status: its creator may not see its network.

    Args:
        resolver: finds and checks addresses.
        timeout: seconds for a request, with its lookup and its answer.
        tls: verifies receivers. Default: by the system's certificates.
    """

    def __init__(
        self, resolver: Resolver, timeout: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self._resolver = resolver
        self._timeout = timeout
        self._tls = ssl.create_default_context() if tls is None else tls

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post a body; return what became of it. It raises nothing."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._post(urlsplit(url), headers, body)
        except TimeoutError:
            return Answer(failure=f"no answer within {self._timeout:g} s")
        except Forbidden as error:
            return Answer(failure=str(error))
        except ssl.SSLError as error:
            return Answer(failure=f"TLS: {error.reason or 'failed'}")
        except (OSError, EOFError):
            return Answer(failure="no connection, or it broke")
        except h11.ProtocolError:
            return Answer(failure="the answer is not HTTP/1.1")
        except ValueError:
            return Answer(failure="the URL cannot be used")

    async def _post(self, url: SplitResult, headers: Mapping[str, str], body: bytes) -> Answer:
        host = url.hostname or ""
        if not host.isascii():
            # `faß.de` is another host by IDNA 2003, which Python knows, than by IDNA 2008.
            raise ValueError(host)
        encrypted = url.scheme == "https"
        port = url.port or (443 if encrypted else 80)
        addresses = await self._resolver.addresses(host, encrypted=encrypted)
        reader, writer = await self._connect(addresses, port, host if encrypted else None)
        try:
            name = f"[{host}]" if ":" in host else host
            given = {"host": name if url.port is None else f"{name}:{port}", **headers}
            target = quote(url.path or "/", _SAFE) + (
                f"?{quote(url.query, _SAFE)}" if url.query else ""
            )
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
            request = h11.Request(
                method="POST",
                target=target,
                headers=[
                    *given.items(),
                    ("content-length", str(len(body))),
                    ("connection", "close"),
                ],
            )
            for event in (request, h11.Data(data=body), h11.EndOfMessage()):
                writer.write(connection.send(event) or b"")
            await writer.drain()
            return await _answer(connection, reader)
        finally:
            writer.transport.abort()

    async def _connect(
        self, addresses: Sequence[Address], port: int, host: str | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        failure: OSError = OSError("no address")
        for address in addresses:
            try:
                # A part of the time for each: behind one that is silent another may answer.
                async with asyncio.timeout(self._timeout / len(addresses)):
                    return await asyncio.open_connection(
                        str(address),
                        port,
                        ssl=None if host is None else self._tls,
                        server_hostname=host,
                        limit=READ_BYTES,
                    )
            except ssl.SSLError:
                raise
            except OSError as error:
                failure = error
        raise failure


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    """Read an answer. Its status decides."""
    while True:
        event = await _next_event(connection, reader)
        if isinstance(event, h11.Response):
            break
    # Its sender sees no reset if the body is read.
    with contextlib.suppress(TimeoutError, OSError, EOFError, h11.ProtocolError):
        async with asyncio.timeout(REST_SECONDS):
            room = MAX_ANSWER_BYTES
            while room > 0 and isinstance(rest := await _next_event(connection, reader), h11.Data):
                room -= len(rest.data)
    status = event.status_code
    if 200 <= status < 300:  # noqa: PLR2004
        return Answer(status)
    return Answer(status, f"status {status}", _retry_after(dict(event.headers)))


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Event:
    while True:
        event = connection.next_event()
        if event is h11.PAUSED:
            raise EOFError
        if event is not h11.NEED_DATA:
            assert isinstance(event, h11.Event)  # noqa: S101
            return event
        data = await reader.read(READ_BYTES)
        if not data and connection.their_state is h11.SEND_RESPONSE:
            raise EOFError
        connection.receive_data(data)


def _retry_after(headers: Mapping[bytes, bytes]) -> float | None:
    """Return the seconds of a Retry-After, or until its date by the receiver's own clock."""
    text = headers.get(b"retry-after", b"").decode("ascii", "replace")
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        now = parsedate_to_datetime(headers.get(b"date", b"").decode("ascii", "replace"))
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (OverflowError, TypeError, ValueError):
        return None
