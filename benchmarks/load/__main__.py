"""A process that makes load: commands come in on standard input, what came of them goes out.

One JSON object a line: in, `{"do": "calls.rate", ...arguments}`; out, what that method returned,
or `{"error": WHY}`. It is a process of its own so that neither the server nor the one
that measures shares its interpreter. Times are in seconds by the monotonic clock, which is the
same for all processes of a machine.
"""

import asyncio
import json
import sys
import traceback

import uvloop

from benchmarks.load.calls import Calls
from benchmarks.load.lives import Lives
from benchmarks.load.watches import Watches

PARTS = {
    "calls": Calls,
    "lives": Lives,
    "watches": Watches,
}
"""All that this process can do: each method of a part is a command."""


async def main() -> None:
    """Do what standard input says until it ends."""
    commands = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    parts = {name: part() for name, part in PARTS.items()}
    while line := await commands.readline():
        arguments = json.loads(line)
        part, _, method = arguments.pop("do").partition(".")
        try:
            reply = await getattr(parts[part], method)(**arguments)
        except Exception:  # noqa: BLE001
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
