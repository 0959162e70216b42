"""The load generator of bench.py, a program: as load.py, but it makes its calls by http2.py.

So it leaves the machine to the servers, and can keep streams of reports and watches.
"""

import asyncio
import gc
import time
from typing import Any

import uvloop

from benchmarks.channel import Channel
from benchmarks.http2 import connect
from benchmarks.load import Load, Reply, RunningJob, main
from benchmarks.messages import full_job
from benchmarks.report_stream import PATH, ReportStream
from benchmarks.span import Span
from benchmarks.watching import Watches


class Http2Load(Load):
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: dict[str, Watches] = {}

    def _connect(self, target: str) -> Any:
        return Channel(target)

    async def report(
        self,
        *,
        target: str,
        streams: int,
        jobs: int,
        window: int,
        true: bool,
        warm_up: float,
        seconds: float,
    ) -> Reply:
        """Report over so many streams, each on `jobs` jobs and on a connection of its own.

        `window` is how many reports of a stream are under way at once; `true` says whether the
        jobs are those that `prepare` made, or made up for a server that knows none. Return the
        rate after the warm-up, and how many were acknowledged: all that were made.
        """
        running = self._target(target).running() if true else _made_up(streams * jobs)
        shares = [running[jobs * number : jobs * (number + 1)] for number in range(streams)]
        connections = [await connect(target, PATH) for _ in shares]
        begin = time.monotonic() + warm_up
        span = Span(begin, begin + seconds)
        reporting = [
            ReportStream(connection, share, span, true=true)
            for connection, share in zip(connections, shares, strict=True)
        ]
        for stream in reporting:
            stream.begin(window)
        await asyncio.gather(*(stream.done for stream in reporting))
        for connection in connections:
            connection.close()
        return {
            "rate": sum(stream.measured for stream in reporting) / seconds,
            "calls": sum(stream.acknowledged for stream in reporting),
        }

    async def open(self, target: str, job_id: str, streams: int) -> Reply:
        begin = time.monotonic()
        self._watches[target] = watches = Watches(target, job_id)
        await watches.open(streams)
        gc.freeze()  # or a collection would walk through all of it during a delivery
        return {"seconds": time.monotonic() - begin}

    async def expect(self, target: str, version: int) -> Reply:
        """Be ready for one message on every stream."""
        self._watches[target].expect(version)
        return {}

    async def delivered(self, target: str) -> Reply:
        """Wait until every stream has had it; return when the first, the middle, the last did."""
        times = await self._watches[target].delivered()
        return {"first": times[0], "middle": times[len(times) // 2], "last": times[-1]}


def _made_up(jobs: int) -> list[RunningJob]:
    return [RunningJob(full_job().id, 1) for _ in range(jobs)]


if __name__ == "__main__":
    uvloop.run(main(Http2Load()))
