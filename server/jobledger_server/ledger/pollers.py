"""Which job types workers ask for at this server, now and a short time ago."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

MAX_TYPES = 1000
"""Types that a server remembers and records at most."""

POLLED_SECONDS = 30.0
"""How long a type counts as asked for after the last claim or stream for it."""


class Pollers:
    """The types of all claims and Work streams of this server."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()  # by type, claims and streams that are open
        self._last: dict[str, float] = {}  # when the last of them ended, the latest last

    @contextmanager
    def asking(self, job_types: Collection[str]) -> Iterator[None]:
        """Count the types while the block runs: a worker asks for them."""
        self._open.update(job_types)
        try:
            yield
        finally:
            now = asyncio.get_running_loop().time()
            for job_type in job_types:
                self._open[job_type] -= 1
                if not self._open[job_type]:
                    del self._open[job_type]
                self._last.pop(job_type, None)
                self._last[job_type] = now
            while len(self._last) > MAX_TYPES:
                del self._last[next(iter(self._last))]

    @property
    def open(self) -> int:
        """How many types claims and streams ask for now, each counted."""
        return self._open.total()

    def types(self) -> Collection[str]:
        """Return the types that a worker asks for or did in the last POLLED_SECONDS."""
        since = asyncio.get_running_loop().time() - POLLED_SECONDS
        while self._last and self._last[oldest := next(iter(self._last))] < since:
            del self._last[oldest]
        return list(dict.fromkeys((*self._open, *reversed(self._last))))[:MAX_TYPES]

    def is_polled(self, job_type: str) -> bool:
        """Whether a worker asks for this type or did in the last POLLED_SECONDS."""
        since = asyncio.get_running_loop().time() - POLLED_SECONDS
        return job_type in self._open or self._last.get(job_type, since - 1) >= since
