"""What watchers have been told, from the process that watches to the one that works.

Through a named pipe, one line for each sighting: the id of the job, and the percent.
"""

import asyncio
import os
from typing import Self


class Teller:
    """The watchers' end."""

    def __init__(self, pipe: str) -> None:
        self._file = os.open(pipe, os.O_WRONLY)

    def tell(self, job_id: str, percent: int) -> None:
        # So short a line is written whole or not at all.
        os.write(self._file, f"{job_id} {percent}\n".encode())


class Sightings:
    """The worker's end. A context manager: in its block it listens."""

    def __init__(self, pipe: str) -> None:
        # For both ways, so that it is not at its end before there is anybody to write.
        self._file = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        self._begun = b""
        self._seen: dict[str, int] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._file, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._file)
        os.close(self._file)

    async def wait(self, job_id: str, percent: int) -> None:
        """Wait until the job's watcher has been told so many percent, or more."""
        while self._seen.get(job_id, -1) < percent:
            self._waiting[job_id] = asyncio.get_running_loop().create_future()
            await self._waiting[job_id]

    def _read(self) -> None:
        whole, _, self._begun = (self._begun + os.read(self._file, 65_536)).rpartition(b"\n")
        for line in whole.decode().splitlines():
            job_id, percent = line.split()
            self._seen[job_id] = int(percent)
            waiting = self._waiting.pop(job_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
