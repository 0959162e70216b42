"""Counts what a server sends to PostgreSQL: a program between the two.

    python -m benchmarks.postgres_proxy HOST PORT

It prints the port it listens at and serves until it is killed. For each line of standard input
it prints, as JSON, what has been sent until then: statements, and round trips, which are the
messages that a client waits for the answer to.
"""

import asyncio
import json
import sys
from collections import Counter

STATEMENTS = {b"Q", b"E"}
"""A simple query, and the execution of a prepared one."""

ROUND_TRIPS = {b"Q", b"S", b"H", b"c"}
"""A simple query, Sync, Flush, and the end of a COPY."""

SSL_REQUEST = 80877103


class Proxy:
    """Passes connections on, and counts the messages of their clients."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        return {name: self._counts[name] for name in ("statements", "round_trips")}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, database = await asyncio.open_connection(*self._address)
        async with asyncio.TaskGroup() as both:
            both.create_task(_pass_on(upstream, writer))
            both.create_task(self._pass_on_and_count(reader, database))

    async def _pass_on_and_count(
        self, reader: asyncio.StreamReader, database: asyncio.StreamWriter
    ) -> None:
        started = False
        try:
            while True:
                # A connection begins with messages that have no type: a request for TLS, the start.
                kind = await reader.readexactly(1) if started else b""
                size = await reader.readexactly(4)
                body = await reader.readexactly(int.from_bytes(size, "big") - 4)
                if not started:
                    started = int.from_bytes(body[:4], "big") != SSL_REQUEST
                self._counts["statements"] += kind in STATEMENTS
                self._counts["round_trips"] += kind in ROUND_TRIPS
                database.write(kind + size + body)
                await database.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            database.close()


async def _pass_on(upstream: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
    try:
        while data := await upstream.read(65_536):
            client.write(data)
            await client.drain()
    except ConnectionError:
        pass
    client.close()


async def main(host: str, port: int) -> None:
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    while await commands.readline():
        print(json.dumps(proxy.counts), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
