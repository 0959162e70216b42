"""WatchJobs: what a follower is told, as messages with tokens to go on with."""

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.rpc.messages import change_message
from jobledger_server.rpc.stream_age import Lifetime
from jobledger_server.rpc.tokens import read_token, token
from jobledger_server.watch.feed_reader import Feed, ForeignPlace
from jobledger_server.watch.feed_watch import Follower, Place, Selection, Told
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.job_watch import Draining

KEPT_MESSAGES = 1024
"""Serialized messages kept for the other watchers at most."""

KEPT_BYTES = 8 * 1024 * 1024
"""Bytes that they take at most."""

_PLACE = re.compile(
    r"(?P<epoch>[^/]*)/(?P<seq>[0-9]{1,18})/(?P<until>[0-9]{0,18})(/(?P<as_of>[0-9]{1,18}))?"
)

Write = Callable[[bytes], Awaitable[None]]
"""Sends a serialized WatchJobsResponse."""


class JobsWatch:
    """Serves streams of many jobs. `epoch` gives the name of the feed that the hub is on."""

    def __init__(
        self,
        hub: WatchHub,
        feed: Feed,
        epoch: Callable[[], str],
        *,
        heartbeat: float,
        max_age: float,
    ) -> None:
        self._hub = hub
        self._feed = feed
        self._epoch = epoch
        self._heartbeat = heartbeat
        self._max_age = max_age
        # Thousands may be told the same: then it is serialized once. What is told of a place is
        # the same wherever it was read.
        self._messages: OrderedDict[str, bytes] = OrderedDict()
        self._kept_bytes = 0

    async def serve(self, selection: Selection, resume_token: str, write: Write) -> None:
        """Tell one watcher, without end.

        Raises InvalidRequest, DeletionsForgotten, ForeignPlace, LimitExceeded,
        StoreUnavailable; Draining with the token to go on with.
        """
        tokens = _Tokens(self._epoch(), selection)
        place = tokens.place(resume_token) if resume_token else Place(0, self._feed.seq)
        lifetime = Lifetime(self._max_age)
        follower = Follower(self._feed, selection, place)
        try:
            with self._hub.follow(follower):
                await self._feed.check(max(place.seq, place.listing_until or 0, place.as_of))
                while True:
                    told = await follower.news(lifetime.patience(self._heartbeat))
                    if told is None:
                        at = tokens.at(follower.place)
                        response = pb.WatchJobsResponse(heartbeat=True, resume_token=at)
                        await write(response.SerializeToString())
                        continue
                    while told.changes:
                        # Its client may not read for long: nothing but the message and the
                        # rest of the page is held meanwhile.
                        await write(self._next_message(told, tokens))
                    if told.synced:
                        at = tokens.at(told.place)
                        response = pb.WatchJobsResponse(synced=True, resume_token=at)
                        await write(response.SerializeToString())
        except Draining as draining:
            draining.resume_token = tokens.at(follower.place)
            raise

    def _next_message(self, told: Told, tokens: "_Tokens") -> bytes:
        """Serialize the next change, or take what another watcher was sent of the same."""
        change = told.changes.popleft()
        at = tokens.at(told.place_of(change))
        message = self._messages.get(at)
        if message is None:
            message = self._messages[at] = change_message(change, at)
            self._kept_bytes += len(message)
            while self._kept_bytes > KEPT_BYTES or len(self._messages) > KEPT_MESSAGES:
                _, oldest = self._messages.popitem(last=False)
                self._kept_bytes -= len(oldest)
        return message


class _Tokens:
    """Places in one feed as tokens of one selection."""

    def __init__(self, epoch: str, selection: Selection) -> None:
        self._epoch = epoch
        self._key = selection.key()

    def at(self, place: Place) -> str:
        until = "" if place.listing_until is None else place.listing_until
        as_of = f"/{place.as_of}" if place.as_of else ""
        return token(self._key, f"{self._epoch}/{place.seq}/{until}{as_of}")

    def place(self, given: str) -> Place:
        """Read a token. Raises InvalidRequest, ForeignPlace."""
        # Its digest is no secret: what is in it can be anything.
        parts = _PLACE.fullmatch(read_token("resume_token", self._key, given))
        if parts is None or parts["epoch"] != self._epoch:
            raise ForeignPlace
        until = int(parts["until"]) if parts["until"] else None
        return Place(int(parts["seq"]), until, int(parts["as_of"] or 0))
