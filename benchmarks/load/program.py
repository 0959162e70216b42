"""A program that makes load: commands come in on standard input, what came of them goes out.

One JSON object a line: in, `{"do": NAME, ...arguments}`; out, what the method of that name
returned, or `{"error": WHY}`. It is a process of its own so that neither the server nor the one
that measures shares its interpreter. Times are in seconds by the monotonic clock, which is the
same for all processes of a machine.
"""

import asyncio
import json
import sys
import traceback
from typing import Any

import uvloop

Reply = dict[str, Any]


class Wrong(Exception):
    """An answer was not what it must be."""


def serve(program: type) -> None:
    """Do what standard input says until it ends: each method of the program is a command."""
    uvloop.run(_serve(program))


async def _serve(program: type) -> None:
    commands = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    methods = program()
    while line := await commands.readline():
        command = json.loads(line)
        try:
            reply = await getattr(methods, command.pop("do"))(**command)
        except Exception:  # noqa: BLE001
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), flush=True)
