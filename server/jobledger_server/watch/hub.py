"""The hub: takes the changes in the order of their commits and hands each to its watchers."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.model import JobId
from jobledger_server.store import Change
from jobledger_server.watch.subscription import Draining, Subscription

AT_ONCE = 50
"""Watchers woken in one turn of the event loop."""


class WatchHub:
    """Where commits and watchers meet, in one event loop.

    The feed's counter is dense, so the hub knows what it has: changes that
    follow the last place are handed on at once; changes that leave a gap (another
    server committed in between) are not, for then the order would be lost, but
    `on_gap` is called, and what is missing is read from the table. `observe` is
    told of every change.
    """

    def __init__(
        self,
        seq: int,
        on_gap: Callable[[], None],
        observe: Callable[[Change], None] = lambda _: None,
        *,
        max_watches: int,
    ) -> None:
        self._seq = seq
        self._on_gap = on_gap
        self._observe = observe
        self._max_watches = max_watches
        self._watchers: dict[JobId, set[Subscription]] = {}
        self._asleep: deque[Subscription] = deque()
        self._waking = False
        self._count = 0
        self._draining = False

    @property
    def seq(self) -> int:
        """The place in the feed up to which every watcher has been told."""
        return self._seq

    @property
    def watches(self) -> int:
        """How many watchers there are."""
        return self._count

    def publish(self, changes: Sequence[Change]) -> None:
        """Take the changes of a commit of this process."""
        if changes and changes[0].seq > self._seq + 1:
            self._on_gap()
            return
        self.deliver(changes)

    def deliver(self, changes: Sequence[Change]) -> None:
        """Take changes that leave no gap. Those that were taken before are ignored."""
        for change in changes:
            if change.seq > self._seq:
                for subscription in self._watchers.get(change.job.id, ()):
                    subscription.offer(change)
                    if not subscription.waking:
                        subscription.waking = True
                        self._asleep.append(subscription)
                self._observe(change)
                self._seq = change.seq
        if not self._waking:
            self._wake_some()

    def _wake_some(self) -> None:
        """Wake a few watchers, and leave the rest for the loop's next turn.

        Woken all at once, ten thousand watchers would hold up for half a second
        whoever else is served, the caller who made the change included.
        """
        for _ in range(min(AT_ONCE, len(self._asleep))):
            subscription = self._asleep.popleft()
            subscription.waking = False
            subscription.wake()
        self._waking = bool(self._asleep)
        if self._waking:
            asyncio.get_running_loop().call_soon(self._wake_some)

    @contextmanager
    def subscribe(self, job_id: JobId) -> Iterator[Subscription]:
        """Take every change of the job from now on. Raises LimitExceeded and Draining."""
        if self._draining:
            raise Draining
        if self._count >= self._max_watches:
            raise LimitExceeded("watches", self._max_watches)
        subscription = Subscription(job_id)
        self._watchers.setdefault(job_id, set()).add(subscription)
        self._count += 1
        try:
            yield subscription
        finally:
            watchers = self._watchers[job_id]
            watchers.remove(subscription)
            if not watchers:
                del self._watchers[job_id]
            self._count -= 1

    def drain(self) -> None:
        """End every watch, and take no more."""
        self._draining = True
        self._end_all()

    def restart(self, seq: int) -> None:
        """End every watch, and go on from this place in what is another feed."""
        self._seq = seq
        self._end_all()

    def _end_all(self) -> None:
        for watchers in self._watchers.values():
            for subscription in watchers:
                subscription.drain()
