"""What the clients of a run share with each other."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from tests.checker.history import Snapshot

USERS = ("ada", "bob", "cyd")
TYPES = ("render", "encode", "index")
BRIEF = "brief"
"""The type of jobs that one client creates, ends and deletes at once; no worker claims them."""

GROUP = "album"
"""The type of groups, which no worker runs. Their owners delete them."""

DEFAULTED = TYPES[1]
"""The type whose jobs have a default priority throughout."""

DEFAULT_PRIORITY = 7
"""That priority. No creation says it."""

ONE_AT_A_TIME = "one"
"""The concurrency key whose limit is one."""

KEYS = (ONE_AT_A_TIME, "db", "s3:a", "s3:b")
"""Concurrency keys of jobs."""

TENANTS = ("", "", "acme", "zeta")


@dataclass(slots=True)
class Board:
    """Jobs that are new or have output, to watch; and ended ones, to be deleted or repeated."""

    fresh: deque[Snapshot] = field(default_factory=lambda: deque(maxlen=50))
    written: deque[Snapshot] = field(default_factory=lambda: deque(maxlen=50))
    """Jobs whose workers write output."""
    ended: deque[Snapshot] = field(default_factory=deque)
    failed: deque[Snapshot] = field(default_factory=deque)
    created: int = 0
    closed: set[str] = field(default_factory=set)
    """Jobs that some client knows to have ended."""
    load: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when no more jobs are to be created."""
    work: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when every job has ended and the workers may go."""

    def close(self, job: Snapshot) -> None:
        """Note that a job has ended."""
        if job.job_id not in self.closed:
            self.closed.add(job.job_id)
            if job.job_type not in (BRIEF, GROUP):  # whose own client deletes it
                self.ended.append(job)
                if job.status == "FAILED":
                    self.failed.append(job)

    @property
    def open(self) -> int:
        return self.created - len(self.closed)


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Sleep, but not on after the event."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
