"""A watcher's slot: the newest snapshot and the transitions not yet sent. Never a queue.

However long a watcher stalls, it costs this and nothing else: progress conflates,
and a job has few transitions.
"""

from msgspec import Struct

from jobledger_server.domain.errors import JobNotFound
from jobledger_server.domain.job import Job, JobId, Transition
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.store import Change
from jobledger_server.watch.wake_up import Bell


class Draining(Exception):
    """The server is going away; another one, or the next, goes on with the watch.

    `rotated` says that only this stream ends, because it is old. `resume_token` is
    where a watch of many jobs goes on.
    """

    def __init__(self, *, rotated: bool = False) -> None:
        super().__init__()
        self.rotated = rotated
        self.resume_token = ""


class News(Struct, frozen=True):
    """What a watcher is told: the newest snapshot and every step since the last news."""

    job: Job
    transitions: tuple[Transition, ...]

    @property
    def last(self) -> bool:
        """Whether nothing can follow."""
        return self.job.status in TERMINAL


class Subscription:
    """One watcher of one job.

    `offer` may be called from the moment of subscribing on, so that nothing
    committed between subscribing and reading the job is missed; `begin` then says
    what was read, and what was offered up to that version is not news.
    """

    def __init__(self, job_id: JobId) -> None:
        self.job_id = job_id
        self.waking = False  # the hub's note that its turn to be woken is coming
        self._version = 0
        self._job: Job | None = None
        self._transitions: list[Transition] = []
        self._deleted = False
        self._draining = False
        self._bell = Bell()

    def offer(self, change: Change) -> None:
        """Take a change of the job, without waking the watcher yet.

        What is not newer than what is known is ignored.
        """
        if change.deleted:
            # The place stays with what was offered before: an end is told even so.
            self._deleted = True
        elif change.job.version > self._version:
            if change.transitions:
                self._transitions += [s for s in change.transitions if s.version > self._version]
            self._job = change.job
            self._version = change.job.version

    def wake(self) -> None:
        """Wake the watcher: there may be news."""
        self._bell.ring()

    def begin(self, version: int) -> None:
        """Say which version the watcher has been told already."""
        self._transitions = [step for step in self._transitions if step.version > version]
        if self._version <= version:
            self._job = None
            self._version = version

    def end(self) -> None:
        """Let go of everything: the watcher is gone."""
        self._bell.silence()

    def drain(self) -> None:
        """Tell the watcher that this server is going away."""
        self._draining = True
        self.wake()

    async def news(self, patience: float) -> News | None:
        """Return what is new, as soon as anything is; None if nothing was for `patience` seconds.

        Raises JobNotFound when the job is deleted and Draining when the server
        goes away, but never before an end that is known.
        """
        while True:
            job, steps = self._job, self._transitions
            if job is not None and (not self._draining or job.status in TERMINAL):
                self._job = None
                if not steps:
                    return News(job, ())
                self._transitions = []
                return News(job, tuple(steps))
            if self._deleted:
                raise JobNotFound(self.job_id)
            if self._draining:
                raise Draining
            if not await self._bell.wait(patience):
                return None
