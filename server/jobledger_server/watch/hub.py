"""The hub: takes changes in the order of their commits and hands each to its watches."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol, TypeVar

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import Caller
from jobledger_server.admission.endings import Ending, FeedRestarted, ShuttingDown
from jobledger_server.domain.job import JobId
from jobledger_server.store import Change, FeedPage
from jobledger_server.tuning import Tuning
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.early_changes import EarlyChanges
from jobledger_server.watch.feed_watch import FeedWatch
from jobledger_server.watch.held_jobs import HeldJobs, Holders
from jobledger_server.watch.job_watch import JobWatch


class JobObserver(Protocol):
    """A watch that takes every change of one job."""

    wake_scheduled: bool
    """Set and cleared by the hub."""

    def offer(self, change: Change) -> bool:
        """Take a change of the job; return whether the watch is to be woken."""

    def wake(self) -> None:
        """Wake the watch."""

    def close(self) -> None:
        """Release what it holds: the client is gone."""

    def end(self, ending: Ending) -> None:
        """End the watch, for this reason."""


Key = TypeVar("Key")
Watch = TypeVar("Watch", JobObserver, FeedWatch)

WATCHES_PER_FULL_WATCH = 80
"""One in this many watches may be of many jobs with their payloads. Each of those holds messages of
a mebibyte while its client does not read."""

WATCHES_PER_ALL_OWNERS_WATCH = 80
"""One in this many watches may be of all owners' jobs. Each of those is sent every change, so
thousands of them would leave the server no time for anything else."""

ONE_CALLERS_ALL_OWNERS_WATCHES = 0.8
"""The part of these that one caller may have: usually one service watches all owners' jobs."""


class WatchHub:
    """Where commits and watches meet, in one event loop.

    The feed's counter is dense, so the hub knows what it has seen. Changes that follow the
    last sequence number are handed on at once. A commit that leaves a gap, because another
    one came in between, is kept, and `on_gap` is called: what is missing is read from the
    table, and then the commit is handed on.

    Args:
        buffer: The newest changes.
        on_gap: Called when changes have to be read from the table.
        observe: Called with each change.
        max_watches: Watches open at once, of all callers.
        share: The part of it that one caller may have, up to 1.
        tuning: How many early changes are kept, and how many watches woken at once.
    """

    def __init__(
        self,
        buffer: ChangeBuffer,
        on_gap: Callable[[], None],
        observe: Callable[[Change], None] = lambda _: None,
        *,
        max_watches: int,
        share: float = 1.0,
        tuning: Tuning = Tuning(),
    ) -> None:
        self._buffer = buffer
        self._on_gap = on_gap
        self._observe = observe
        each = max(1, int(max_watches * share))
        self._admission = Admission(
            "watches", total=max_watches, each=each, quota=lambda quotas: quotas.watches
        )
        of_all = max(1, max_watches // WATCHES_PER_ALL_OWNERS_WATCH)
        self._of_all_owners = Admission(
            "watches_of_all_users",
            total=of_all,
            each=max(1, int(of_all * ONE_CALLERS_ALL_OWNERS_WATCHES)),
        )
        of_full = max(1, max_watches // WATCHES_PER_FULL_WATCH)
        self._of_full_jobs = Admission(
            "watches_of_full_jobs", total=of_full, each=max(1, int(of_full * share))
        )
        # Dicts serve as sets that keep the order: watches are woken in the order they were opened.
        self._job_watches: dict[JobId, dict[JobObserver, None]] = {}
        self._feed_watches: dict[str | None, dict[FeedWatch, None]] = {}
        self._early = EarlyChanges(tuning)
        self._woken_at_once = tuning.woken_watches
        self.delivered = {"commit": 0, "table": 0}
        """Changes handed to watches: from this process's own commits, and read from the table."""
        self._holders = Holders()
        self._to_wake: deque[JobObserver | FeedWatch] = deque()
        self._waking = False
        self._draining = False

    @property
    def seq(self) -> int:
        """The newest sequence number that this server has handed to its watches."""
        return self._buffer.seq

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return self._admission.held

    @property
    def feed_watches(self) -> int:
        """How many of them are of many jobs."""
        return sum(map(len, list(self._feed_watches.values())))

    @property
    def watched(self) -> int:
        """How many jobs, and owners of many jobs, there are watches of."""
        return len(self._job_watches) + len(self._feed_watches)

    @property
    def holders(self) -> int:
        """How many streams of workers there are, and jobs that they hold."""
        return len(self._holders)

    @property
    def admissions(self) -> tuple[Admission, ...]:
        """The limits of watches."""
        return self._admission, self._of_all_owners, self._of_full_jobs

    @property
    def newest(self) -> int:
        """The newest sequence number that this process has seen."""
        return max(self.seq, self._early.last)

    @property
    def gap_end(self) -> int | None:
        """The sequence number up to which changes are missing, if this process knows later ones."""
        first = self._early.first
        return None if first is None else first - 1

    def publish(self, changes: Sequence[Change]) -> None:
        """Take the changes of a commit of this process."""
        follows = changes and changes[0].seq == self.seq + 1
        if follows and self._early.first is None:
            self._hand_on(list(changes), changes[-1].seq)
            self.delivered["commit"] += len(changes)
            return
        self._early.add([change for change in changes if change.seq > self.seq])
        self._deliver_early()
        if changes and changes[-1].seq > self.seq:
            self._on_gap()

    def deliver(self, page: FeedPage) -> None:
        """Take a page of the table that leaves no gap. What was handed on before is ignored."""
        if page.through <= self.seq:
            return
        new = [change for change in page.changes if change.seq > self.seq]
        self._hand_on(new, page.through)
        self.delivered["table"] += len(new)
        self._early.drop(page.through)
        self._deliver_early()

    def _deliver_early(self) -> None:
        """Hand on the commits that follow what was handed on."""
        changes = self._early.take(self.seq)
        if changes:
            self._hand_on(changes, changes[-1].seq)
            self.delivered["commit"] += len(changes)

    def _hand_on(self, changes: list[Change], through: int) -> None:
        """Hand on the changes up to the sequence number `through`."""
        of_owner: dict[str | None, list[Change]] = {None: changes}
        for change in changes:
            of_owner.setdefault(change.job.user_id, []).append(change)
            for job_watch in self._job_watches.get(change.job.id, ()):
                if job_watch.offer(change):
                    self._schedule_wake(job_watch)
            for held_jobs in self._holders.of(change.job.id):
                # Woken at once: one stream holds a job, and thousands may watch it.
                if held_jobs.offer(change):
                    held_jobs.wake()
            self._observe(change)
            self._buffer.add(change)
        self._buffer.advance(through)
        for user_id, owned in of_owner.items():
            for feed_watch in self._feed_watches.get(user_id, ()):
                if feed_watch.offer(owned):
                    self._schedule_wake(feed_watch)
        if not self._waking:
            self._wake_some()

    def changes_since(self, seq: int) -> Sequence[Change] | None:
        """Return the changes handed on after `seq`, or None if some of them are no longer kept."""
        return None if seq < self._buffer.floor else self._buffer.after(seq)

    def _schedule_wake(self, watch: JobObserver | FeedWatch) -> None:
        if not watch.wake_scheduled:
            watch.wake_scheduled = True
            self._to_wake.append(watch)

    def _wake_some(self) -> None:
        """Wake a few watches, and leave the rest for the next turn of the event loop.

        Waking ten thousand at once would block everything else for half a second, and
        so also the answer to the caller who made the change.
        """
        for _ in range(min(self._woken_at_once, len(self._to_wake))):
            watch = self._to_wake.popleft()
            watch.wake_scheduled = False
            watch.wake()
        self._waking = bool(self._to_wake)
        if self._waking:
            asyncio.get_running_loop().call_soon(self._wake_some)

    @contextmanager
    def subscribe(self, job_id: JobId, caller: Caller) -> Iterator[JobWatch]:
        """Receive every change of the job from now on. Raises LimitExceeded and ShuttingDown."""
        watch = JobWatch(job_id)
        with self.observed(job_id, watch, caller):
            yield watch

    @contextmanager
    def observed(self, job_id: JobId, watch: JobObserver, caller: Caller) -> Iterator[None]:
        """Let a watch observe a job. Raises LimitExceeded and ShuttingDown."""
        with self._registered(self._job_watches, job_id, watch, caller):
            yield

    @contextmanager
    def subscribe_to_feed(self, watch: FeedWatch, *, full: bool = False) -> Iterator[None]:
        """Wake the watch for every matching change. Raises LimitExceeded and ShuttingDown.

        `full` says that it is sent the jobs' payloads.
        """
        user_id = watch.selection.user_id
        of_all = self._of_all_owners.admit(watch.caller) if user_id is None else nullcontext()
        of_full = self._of_full_jobs.admit(watch.caller) if full else nullcontext()
        with of_all, of_full, self._registered(self._feed_watches, user_id, watch, watch.caller):
            yield

    @contextmanager
    def holding(self, wake: Callable[[], None]) -> Iterator[HeldJobs]:
        """Yield the jobs that a stream holds, none at first; `wake` is called for each signal.

        Raises ShuttingDown.
        """
        if self._draining:
            raise ShuttingDown
        with self._holders.opened(wake) as held_jobs:
            yield held_jobs

    @contextmanager
    def _registered(
        self, watches: dict[Key, dict[Watch, None]], key: Key, watch: Watch, caller: Caller
    ) -> Iterator[None]:
        if self._draining:
            raise ShuttingDown
        with self._admission.admit(caller):
            watches.setdefault(key, {})[watch] = None
            try:
                yield
            finally:
                del watches[key][watch]
                if not watches[key]:
                    del watches[key]
                watch.close()

    def drain(self) -> None:
        """End every watch, and accept no more."""
        self._draining = True
        self._end_all(ShuttingDown)

    def restart(self, seq: int) -> None:
        """End every watch at its present cursor, and continue from this sequence number.

        First the watches, then the buffer: a cursor that followed the new `seq` would skip
        changes that were never sent.
        """
        self._end_all(FeedRestarted)
        self._early.clear()
        self._buffer.restart(seq)

    def _end_all(self, ending: Callable[[], Ending]) -> None:
        for job_watches in self._job_watches.values():
            for job_watch in job_watches:
                job_watch.end(ending())
        for feed_watches in self._feed_watches.values():
            for feed_watch in feed_watches:
                feed_watch.end(ending())
        self._holders.end(ending)
