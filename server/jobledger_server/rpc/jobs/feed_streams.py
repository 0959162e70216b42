"""WatchJobs: a feed watch's updates as messages, each with a token to resume from."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote, unquote

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.admission.endings import Ending
from jobledger_server.domain.job import JobId, is_id
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.jobs.shared_messages import SharedMessages
from jobledger_server.rpc.messages import changes_message
from jobledger_server.rpc.stream_age import StreamAge
from jobledger_server.rpc.tokens import read_token, token
from jobledger_server.store import START_OF_ACTIVE, ActivePosition
from jobledger_server.watch.feed_reader import FeedReader, ForeignCursor
from jobledger_server.watch.feed_watch import Cursor, FeedUpdate, FeedWatch, Selection
from jobledger_server.watch.hub import WatchHub

_CURSOR = re.compile(
    r"(?P<epoch>[^/]*)/(?P<seq>[0-9]{1,18})/((?P<job_id>[^/]{36})/(?P<user_id>[^/]*))?"
    r"(/(?P<as_of>[0-9]{1,18}))?"
)


@dataclass(frozen=True, slots=True)
class FeedStreams:
    """Serves streams of WatchJobs. `epoch` returns the epoch of the hub's feed."""

    hub: WatchHub
    reader: FeedReader
    epoch: Callable[[], str]
    heartbeat: float
    max_age: float
    # A message from one cursor to another serves all watches that are at the first.
    _messages: SharedMessages = field(default_factory=SharedMessages, init=False)

    async def serve(self, selection: Selection, resume_token: str, call: Call) -> None:
        """Serve one stream, until it is cancelled or an error ends it.

        Raises:
            InvalidRequest: The token is damaged or of another request.
            ForeignCursor: The token is of another database, or this one was restored.
            FeedCompacted: Deletions after the token are no longer known.
            LimitExceeded: Too many watches are open.
            StoreUnavailable: The database does not answer.
            Ending: The server is shutting down, or the stream reached its maximum age. The error
                has the token to resume from.
        """
        tokens = _Tokens(self.epoch(), selection)
        start = Cursor(self.reader.seq, START_OF_ACTIVE)
        cursor = tokens.read(resume_token) if resume_token else start
        age = StreamAge(self.max_age)
        watch = FeedWatch(self.reader, selection, cursor, call.caller)
        try:
            with self.hub.subscribe_to_feed(watch):
                await self.reader.check(max(cursor.seq, cursor.as_of))
                while True:
                    update = await watch.next_update(age.max_wait(self.heartbeat))
                    unsent = self._serialized(update, tokens.token_at(watch.cursor))
                    del update
                    while unsent:
                        # The client may not read for a long time. It then holds only messages.
                        await call.write(unsent.pop(0))
        except Ending as ending:
            ending.resume_token = tokens.token_at(watch.cursor)
            raise

    def _serialized(self, update: FeedUpdate | None, at: str) -> list[bytes]:
        """Serialize what a watch sends next: changes, `synced` or both, else a heartbeat."""
        if update is None:
            return [pb.WatchJobsResponse(heartbeat=True, resume_token=at).SerializeToString()]
        messages = []
        if update.changes:
            make = partial(changes_message, update.changes, at)
            messages.append(self._messages.get((update.after, at), make))
        if update.synced:
            synced = pb.WatchJobsResponse(synced=True, resume_token=at)
            messages.append(synced.SerializeToString())
        return messages


class _Tokens:
    """Cursors of one selection in one feed, as tokens."""

    def __init__(self, epoch: str, selection: Selection) -> None:
        self._epoch = epoch
        self._key = selection.key()

    def token_at(self, cursor: Cursor) -> str:
        position = cursor.listed
        listed = "" if position is None else f"{position.job_id}/{quote(position.user_id, safe='')}"
        as_of = f"/{cursor.as_of}" if cursor.as_of else ""
        return token(self._key, f"{self._epoch}/{cursor.seq}/{listed}{as_of}")

    def read(self, given: str) -> Cursor:
        """Read a token. Raises InvalidRequest and ForeignCursor."""
        # Its digest is not secret, so its content can be anything.
        parts = _CURSOR.fullmatch(read_token("resume_token", self._key, given))
        if parts is None or parts["epoch"] != self._epoch:
            raise ForeignCursor
        listed = None
        if parts["job_id"] is not None:
            user_id = unquote(parts["user_id"])
            if "\0" in user_id or not is_id(parts["job_id"]):
                raise ForeignCursor
            listed = ActivePosition(user_id, JobId(parts["job_id"]))
        return Cursor(int(parts["seq"]), listed, int(parts["as_of"] or 0))
