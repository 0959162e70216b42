"""Puts a database some milliseconds away, as on another machine: a program that passes bytes on."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from benchmarks.postgres import Cluster
from benchmarks.processes import free_port, listens, running


@contextmanager
def away(cluster: Cluster, milliseconds: float, folder: Path) -> Iterator[Cluster]:
    """Have the same cluster at a port where each byte arrives so much later, both ways."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "benchmarks.away",
        str(port),
        str(cluster.port),
        str(milliseconds),
    ]
    with running(command, folder / "away.log", lambda: listens(port)):
        yield replace(cluster, port=port)


async def _pass_on(port: int, target: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()

    async def one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                loop.call_later(seconds, writer.write, data)
        loop.call_later(seconds, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(one_way(reader, far_writer), one_way(far_reader, writer))

    await (await asyncio.start_server(serve, "127.0.0.1", port)).serve_forever()


if __name__ == "__main__":
    listen, to, milliseconds = sys.argv[1:]
    asyncio.run(_pass_on(int(listen), int(to), float(milliseconds) / 1000))
