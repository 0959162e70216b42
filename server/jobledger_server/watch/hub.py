"""The hub: takes the changes in the order of their commits and hands each to its watchers."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from jobledger_server.admission.admission import Admission
from jobledger_server.domain.job import JobId
from jobledger_server.store import Change
from jobledger_server.watch.change_buffer import Window
from jobledger_server.watch.feed_watch import Follower
from jobledger_server.watch.job_watch import Draining, Subscription

Key = TypeVar("Key")
Watcher = TypeVar("Watcher", Subscription, Follower)

AT_ONCE = 50
"""Watchers woken in one turn of the event loop."""

ALL_OWNERS_PART = 80
"""One in so many watches may be of all owners' jobs: each of those is sent every change there is,
so thousands of them would keep the server from everything else."""


class WatchHub:
    """Where commits and watchers meet, in one event loop.

    The feed's counter is dense, so the hub knows what it has: changes that
    follow the last place are handed on at once; changes that leave a gap (another
    server committed in between) are not, for then the order would be lost, but
    `on_gap` is called, and what is missing is read from the table. So are changes that
    follow a page of the table which did not reach where the feed stood then: that page
    passed over the jobs that were deleted by then. `observe` is told of every change.
    """

    def __init__(
        self,
        window: Window,
        on_gap: Callable[[], None],
        observe: Callable[[Change], None] = lambda _: None,
        *,
        max_watches: int,
        share: float = 1.0,
    ) -> None:
        self._window = window
        self._on_gap = on_gap
        self._observe = observe
        each = max(1, int(max_watches * share))
        self._admission = Admission("watches", total=max_watches, each=each)
        of_all = max(1, max_watches // ALL_OWNERS_PART)
        self._of_all_owners = Admission(
            "watches of all owners' jobs", total=of_all, each=max(1, of_all * 4 // 5)
        )
        self._watchers: dict[JobId, set[Subscription]] = {}
        self._followers: dict[str | None, set[Follower]] = {}
        self._asleep: deque[Subscription | Follower] = deque()
        self._waking = False
        self._draining = False

    @property
    def seq(self) -> int:
        """The place in the feed up to which every watcher has been told."""
        return self._window.seq

    @property
    def watches(self) -> int:
        """How many watchers there are."""
        return self._admission.held

    def publish(self, changes: Sequence[Change]) -> None:
        """Take the changes of a commit of this process."""
        if changes and (changes[0].seq > self.seq + 1 or self.seq < self._window.as_of):
            self._on_gap()
            return
        self.deliver(changes)

    def deliver(self, changes: Sequence[Change]) -> None:
        """Take changes that leave no gap. Those that were taken before are ignored."""
        for change in changes:
            if change.seq > self.seq:
                for subscription in self._watchers.get(change.job.id, ()):
                    subscription.offer(change)
                    self._call_up(subscription)
                for user_id in (change.job.user_id, None):
                    for follower in self._followers.get(user_id, ()):
                        if follower.offer(change):
                            self._call_up(follower)
                self._observe(change)
                self._window.add(change)
        if not self._waking:
            self._wake_some()

    def _call_up(self, watcher: Subscription | Follower) -> None:
        if not watcher.waking:
            watcher.waking = True
            self._asleep.append(watcher)

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
        subscription = Subscription(job_id)
        with self._registered(self._watchers, job_id, subscription):
            yield subscription

    @contextmanager
    def follow(self, follower: Follower) -> Iterator[None]:
        """Wake the follower in the block for every change that it is to be told.

        Raises LimitExceeded and Draining.
        """
        user_id = follower.selection.user_id
        admitted = nullcontext() if user_id is not None else self._of_all_owners.admit()
        with admitted, self._registered(self._followers, user_id, follower):
            yield

    @contextmanager
    def _registered(
        self, watchers: dict[Key, set[Watcher]], key: Key, watcher: Watcher
    ) -> Iterator[None]:
        if self._draining:
            raise Draining
        with self._admission.admit():
            watchers.setdefault(key, set()).add(watcher)
            try:
                yield
            finally:
                watchers[key].remove(watcher)
                if not watchers[key]:
                    del watchers[key]
                watcher.end()

    def drain(self) -> None:
        """End every watch, and take no more."""
        self._draining = True
        self._end_all()

    def restart(self, seq: int) -> None:
        """End every watch at the cursor that it has, and go on from this sequence number.

        In this order: nobody was sent what lies between, so no cursor may move past it.
        """
        self._end_all()
        self._window.restart(seq)

    def _end_all(self) -> None:
        for subscriptions in self._watchers.values():
            for subscription in subscriptions:
                subscription.drain()
        for followers in self._followers.values():
            for follower in followers:
                follower.drain()
