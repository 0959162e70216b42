"""A watch of one job: the newest snapshot and the transitions not yet sent. Never a queue.

However long its client stalls, a watch costs this and nothing more: progress conflates,
and a job has few transitions.
"""

from msgspec import Struct

from jobledger_server.admission.endings import Ending
from jobledger_server.domain.errors import JobNotFound
from jobledger_server.domain.job import Job, JobId, Transition
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.store import Change
from jobledger_server.watch.wake_up import WakeUp


class JobUpdate(Struct, frozen=True):
    """The newest snapshot of a job, and every transition since the previous update."""

    job: Job
    transitions: tuple[Transition, ...]

    @property
    def last(self) -> bool:
        """Whether nothing can follow."""
        return self.job.status in TERMINAL


class JobWatch:
    """A watch of one job.

    `offer` may be called from the moment of subscribing on, so nothing committed between
    subscribing and reading the job is missed. `sent_up_to` then says which version was
    read and sent; what was offered up to that version is dropped.
    """

    def __init__(self, job_id: JobId) -> None:
        self.job_id = job_id
        self.wake_scheduled = False  # set and cleared by the hub
        self._version = 0
        self._job: Job | None = None
        self._transitions: list[Transition] = []
        self._deleted = False
        self._ending: Ending | None = None
        self._wake_up = WakeUp()

    def offer(self, change: Change) -> bool:
        """Take a change of the job, and return that the watch is to be woken.

        Older versions are ignored.
        """
        if change.deleted:
            # What was offered before stays: a terminal state is sent even so.
            self._deleted = True
        elif change.job.version > self._version:
            if change.transitions:
                self._transitions += [t for t in change.transitions if t.version > self._version]
            self._job = change.job
            self._version = change.job.version
        return True

    def wake(self) -> None:
        """Wake the watch: there may be an update."""
        self._wake_up.set()

    def sent_up_to(self, version: int) -> None:
        """Record the version that the client already has."""
        self._transitions = [t for t in self._transitions if t.version > version]
        if self._version <= version:
            self._job = None
            self._version = version

    def close(self) -> None:
        """Release the wake-up's timer: the client is gone."""
        self._wake_up.close()

    def end(self, ending: Ending) -> None:
        """End the watch, with the reason that `next_update` raises."""
        self._ending = ending
        self.wake()

    async def next_update(self, max_wait: float) -> JobUpdate | None:
        """Return the next update as soon as there is one, or None after `max_wait` seconds.

        Raises:
            JobNotFound: The job was deleted.
            Ending: The stream has to end. A known terminal state is returned first.
        """
        while True:
            job, transitions = self._job, self._transitions
            if job is not None and (self._ending is None or job.status in TERMINAL):
                self._job = None
                if not transitions:
                    return JobUpdate(job, ())
                self._transitions = []
                return JobUpdate(job, tuple(transitions))
            if self._deleted:
                raise JobNotFound(self.job_id)
            if self._ending is not None:
                raise self._ending
            if not await self._wake_up.wait(max_wait):
                return None
