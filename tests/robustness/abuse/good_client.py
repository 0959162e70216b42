"""A client that does nothing wrong, and how well it is served while others do."""

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from tests.support.rpc_caller import Caller

PERIOD = 0.02
"""Seconds between the starts of two calls."""

DEADLINE = 10.0
"""Seconds that a call may take."""

STANDSTILL = 0.05
"""Seconds; the disk stood still if a small write took longer that no server had to do with."""

LONGEST_P99 = 0.25
"""Seconds; what the contract allows under any abuse."""

USUAL_P99 = 0.03
"""Seconds; a p99 that a good client may have on a machine that also does something else. Where it
is served faster alone, one wait for the disk or for a processor would be five times that."""


@dataclass
class Good:
    """The calls of a good client: what failed, and how long each took."""

    failed: list[str] = field(default_factory=list)
    """The failed calls, each with its status."""

    seconds: list[float] = field(default_factory=list)
    """How long each call took, failed ones too."""

    creations: list[float] = field(default_factory=list)
    """The same of the calls of CreateJob. Reads wait neither for those who write nor for the disk:
    if only creations were slow, one of the two was the cause."""

    left_out: int = 0
    """How many calls are in neither list, because the disk stood still during them: what took
    long then is nobody's abuse."""

    @property
    def calls(self) -> int:
        return len(self.seconds)

    @property
    def p50(self) -> float:
        return _quantile(self.seconds, 0.5)

    @property
    def p50_of_creations(self) -> float:
        return _quantile(self.creations, 0.5)

    @property
    def p99(self) -> float:
        return _quantile(self.seconds, 0.99)

    def assert_served(self, alone: "Good") -> None:
        """Assert the measure of all abuse: no failed call, and p99 near what it was without.

        The p99 may be five times what it was without the abuse. That is at most 250 ms, unless
        the machine is so busy that it was more than 50 ms without: then nothing follows from it.
        """
        assert self.failed == [], f"{self}; alone: {alone}"
        assert self.p99 <= 5 * max(alone.p99, USUAL_P99), f"{self}; alone: {alone}"

    def __str__(self) -> str:
        slowest = " ".join(f"{each * 1000:.0f}" for each in sorted(self.creations)[-5:])
        return (
            f"{self.calls} calls, {self.left_out} more while the disk stood still, "
            f"failed: {dict(Counter(self.failed))}, "
            f"p50 {self.p50 * 1000:.1f} ms, of creations {self.p50_of_creations * 1000:.1f} ms, "
            f"p99 {self.p99 * 1000:.1f} ms; the slowest creations took {slowest} ms"
        )


def _quantile(seconds: list[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@asynccontextmanager
async def good_client(
    target: str, user_id: str = "good", *, token: str | None = None
) -> AsyncIterator[Good]:
    """Call CreateJob and GetJob in turn, one call each 20 ms, until the block ends.

    The first call is done before the block begins. At the end all calls are awaited.
    No call waits for another, none is repeated, and the connection is the client's own.
    """
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        call = Caller(channel, timeout=DEADLINE, token=token)
        job = await call.job(user_id=user_id)
        newest = job.id

        async def create() -> None:
            nonlocal newest
            newest = (await call.job(user_id=user_id)).id

        async def get() -> None:
            await call.GetJob(job_id=newest, user_id=user_id)

        async with calling_in_turn(create, get) as good:
            yield good


class Disk:
    """Writes a page every 20 ms beside the servers, and knows when the disk stood still."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._stood_still_until = 0.0

    def stood_still_since(self, begin: float) -> bool:
        """Return whether a write stood still at any time since then."""
        now, began = time.monotonic(), self._began
        stands_still = began is not None and now - began > STANDSTILL
        return stands_still or self._stood_still_until > begin

    async def keep_writing(self, ended: asyncio.Event) -> None:
        with tempfile.TemporaryFile() as file:
            while not ended.is_set():
                await asyncio.to_thread(self._write, file.fileno())
                await asyncio.sleep(PERIOD)

    def _write(self, file: int) -> None:
        began = self._began = time.monotonic()
        os.pwrite(file, bytes(4096), 0)
        os.fsync(file)
        if time.monotonic() - began > STANDSTILL:
            self._stood_still_until = time.monotonic()
        self._began = None


@asynccontextmanager
async def calling_in_turn(
    create: Callable[[], Awaitable[None]], get: Callable[[], Awaitable[None]]
) -> AsyncIterator[Good]:
    """Make two calls in turn, one each 20 ms, until the block ends; then await all."""
    good = Good()
    disk = Disk()

    async def measured(make: Callable[[], Awaitable[None]]) -> None:
        begin = time.monotonic()
        try:
            await make()
        except grpc.aio.AioRpcError as error:
            good.failed.append(f"{make.__name__}: {error.code().name}: {error.details()}")
        except (OSError, EOFError, AssertionError) as error:
            good.failed.append(f"{make.__name__}: {error!r}")
        seconds = time.monotonic() - begin
        if disk.stood_still_since(begin):
            good.left_out += 1
            return
        good.seconds.append(seconds)
        if make is create:
            good.creations.append(seconds)

    async def keep_calling() -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        async with asyncio.TaskGroup() as calls:
            while not ended.is_set():
                for make in (create, get):
                    calls.create_task(measured(make))
                    due += PERIOD
                    await asyncio.sleep(due - loop.time())

    ended = asyncio.Event()
    meanwhile = asyncio.gather(keep_calling(), disk.keep_writing(ended))
    try:
        yield good
    finally:
        ended.set()
        await meanwhile


async def served_alone(target: str, seconds: float = 1.0, *, token: str | None = None) -> Good:
    """Return how a good client is served for some seconds while no other client calls."""
    async with good_client(target, token=token) as good:
        await asyncio.sleep(seconds)
    assert good.failed == [], good
    return good
