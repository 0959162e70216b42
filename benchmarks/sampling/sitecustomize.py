"""Samples where this process's event loop spends its processor time, between two SIGUSR2.

Python imports it by itself where its folder is on the path. At the second signal it
writes to the file that JOBLEDGER_SAMPLES names: for each room of the house, and
each function in it, the seconds that the main thread spent there.

A sample is taken every millisecond of processor time of the process, and counts as
much as the main thread's clock has gone on since the last one: what other threads
use is left out. Time spent in C counts for the Python function that called it.
"""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from types import FrameType

EVERY_SECONDS = 0.001

ROOMS = {
    "/jobledger_server/": "",  # the folder below it names the room
    "/generated/jobledger/": "protobuf",
    "/google/protobuf/": "protobuf",
    "/sqlalchemy/": "SQLAlchemy",
    "/aiosqlite/": "driver",
    "/asyncpg/": "driver",
    "/grpc/": "gRPC",
    "/asyncio/": "gRPC",  # what runs in the loop with no function of ours around it
    "/benchmarks/": "gRPC",
}

_seconds: Counter[tuple[str, str]] = Counter()
_last = 0.0


def _sample(_signal: int, frame: FrameType | None) -> None:
    global _last  # noqa: PLW0603
    now = time.thread_time()
    _seconds[_place(frame)] += now - _last  # type: ignore[assignment]
    _last = now


def _place(frame: FrameType | None) -> tuple[str, str]:
    """Return the room of the innermost function that belongs to one, and its name."""
    while frame is not None:
        path = frame.f_code.co_filename
        for part, room in ROOMS.items():
            if part in path:
                inside = path.rpartition(part)[2]
                return room or inside.partition("/")[0], f"{inside}: {frame.f_code.co_qualname}"
        frame = frame.f_back
    return "gRPC", ""


def _toggle(_signal: int, _frame: FrameType | None) -> None:
    global _last  # noqa: PLW0603
    if signal.getitimer(signal.ITIMER_PROF)[0]:
        signal.setitimer(signal.ITIMER_PROF, 0)
        found = [[*place, seconds] for place, seconds in _seconds.most_common()]
        _seconds.clear()
        file = Path(os.environ["JOBLEDGER_SAMPLES"])
        file.with_suffix(".new").write_text(json.dumps(found))
        file.with_suffix(".new").rename(file)
    else:
        _last = time.thread_time()
        signal.setitimer(signal.ITIMER_PROF, EVERY_SECONDS, EVERY_SECONDS)


signal.signal(signal.SIGPROF, _sample)
signal.signal(signal.SIGUSR2, _toggle)
