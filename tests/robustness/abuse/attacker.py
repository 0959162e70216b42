"""An attack in a process of its own, so that it takes nothing from the good client's loop.

    async with attack(idle_connections, server.target, count=900) as attacker:
        await attacker.begun()
        ...                       # the good client calls
        report = await attacker.report()

An attack is a plain function of any module below `tests/`, which ends by itself:

    def idle_connections(target: str, *, count: int) -> Mapping[str, object]:
        sockets = [connect(target) for _ in range(count)]
        begin()
        wait_for_parent()
        return {"connections": len(sockets)}

Only loopback can be attacked, and the process ends after 30 seconds in any case.
"""

import asyncio
import json
import os
import resource
import runpy
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.support.pages import ROOT

LONGEST_SECONDS = 30
"""Seconds after which an attack is ended by its own alarm."""

BEGUN = "begun"


class Attacker:
    """An attack under way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def begun(self) -> None:
        """Wait until the attack has called `begin()`."""
        assert (await self._line()) == BEGUN

    async def report(self) -> Any:
        """Have the attack end (`wait_for_parent` returns), and return what it returned."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        while (line := await self._line()) == BEGUN:
            pass
        await self._process.wait()
        return json.loads(line)

    async def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _line(self) -> str:
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode().strip()
        if not line:
            code = await self._process.wait()
            raise AssertionError(f"the attack ended with {code} and without a word; see stderr")
        return line


@asynccontextmanager
async def attack(
    function: Callable[..., object], target: str, **options: object
) -> AsyncIterator[Attacker]:
    """Run an attack on a target until the block ends; `options` go to the function."""
    assert target.rpartition(":")[0] in ("127.0.0.1", "[::1]"), "only loopback is attacked"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, function.__code__.co_filename, function.__name__),
        *(target, json.dumps(options)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        limit=2**20,
    )
    attacker = Attacker(process)
    try:
        yield attacker
    finally:
        await attacker.stop()


def begin() -> None:
    """In an attack: report that it is under way."""
    print(BEGUN, flush=True)  # noqa: T201


def wait_for_parent() -> None:
    """In an attack: return when the test wants it to end, or is gone."""
    sys.stdin.buffer.read()


def parent_waits() -> bool:
    """In an attack: whether the test still wants it to go on."""
    os.set_blocking(0, False)
    with suppress(BlockingIOError):
        return os.read(0, 1) != b""
    return True


def _main(file: str, function: str, target: str, options: str) -> None:
    signal.alarm(LONGEST_SECONDS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    report = runpy.run_path(file)[function](target, **json.loads(options))
    print(json.dumps(report), flush=True)  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
