"""WatchJobs: a feed watch's updates as messages, each with a token to resume from."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote, unquote

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.admission.caller import SERVICE
from jobledger_server.admission.endings import Ending
from jobledger_server.domain.job import Job, JobId, JobStatus, is_id
from jobledger_server.ledger.reads import Reads, assets_bytes
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.jobs.deleted_assets import deleted_assets
from jobledger_server.rpc.jobs.shared_messages import SharedMessages
from jobledger_server.rpc.messages import changes_message
from jobledger_server.rpc.payloads import payloads_of
from jobledger_server.rpc.stream_age import StreamAge
from jobledger_server.rpc.tokens import read_token, token
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.store import START_OF_ACTIVE, ActivePosition, Change, FeedCompacted
from jobledger_server.watch.feed_reader import CHANGE_BYTES, FeedReader, ForeignCursor
from jobledger_server.watch.feed_watch import Cursor, FeedUpdate, FeedWatch, Selection
from jobledger_server.watch.hub import WatchHub

_CURSOR = re.compile(
    r"(?P<epoch>[^/]*)/(?P<seq>[0-9]{1,18})/((?P<job_id>[^/]{36})/(?P<user_id>[^/]*))?"
)


@dataclass(frozen=True, slots=True)
class FeedStreams:
    """Serves streams of WatchJobs. `epoch` returns the epoch of the hub's feed."""

    hub: WatchHub
    reader: FeedReader
    reads: Reads
    epoch: Callable[[], str]
    heartbeat: float
    max_age: float
    message_bytes: int
    # A message from one cursor to another serves all watches that are at the first.
    messages: SharedMessages

    def head(self, selection: Selection) -> str:
        """Return the token of a stream that starts after the latest change."""
        return _Tokens(self.epoch(), selection).token_at(Cursor(self.reader.seq))

    def moved(self, resume_token: str, before: Selection, after: Selection) -> str:
        """Return a token of one selection as that of another, at the same place in the feed.

        A token that is not of this feed stays as it is: a stream refuses it.
        """
        try:
            cursor = _Tokens(self.epoch(), before).read(resume_token)
        except (InvalidRequest, ForeignCursor):
            return resume_token
        return _Tokens(self.epoch(), after).token_at(cursor)

    async def serve(
        self, selection: Selection, resume_token: str, call: Call, *, full: bool
    ) -> None:
        """Serve one stream, until it is cancelled or an error ends it.

        Raises:
            InvalidRequest: The token is damaged or of another request.
            ForeignCursor: The token is of another database, or this one was restored.
            FeedCompacted: Deletions after the token, or the assets of one, are no longer known.
            LimitExceeded: Too many watches are open.
            StoreUnavailable: The database does not answer.
            Ending: The server is shutting down, or the stream reached its maximum age. The error
                has the token to resume from.
        """
        tokens = _Tokens(self.epoch(), selection)
        start = Cursor(self.reader.seq, START_OF_ACTIVE)
        cursor = tokens.read(resume_token) if resume_token else start
        age = StreamAge(self.max_age)
        # The holder of a watch token may read neither assets, whose places are the application's,
        # nor request ids.
        to_owner = call.caller.permissions.scope is None
        watch = FeedWatch(self.reader, selection, cursor, call.caller)
        with self.hub.subscribe_to_feed(watch, full=full):
            await self.reader.check(cursor.seq)
            while True:
                try:
                    update = await watch.next_update(age.until_heartbeat(self.heartbeat))
                except Ending as ending:
                    ending.resume_token = tokens.token_at(watch.cursor)
                    raise
                cursor = watch.cursor
                unsent = _parts(update, cursor, self.message_bytes, full=full, assets=to_owner)
                rest = _rest(update, cursor, tokens)
                # The client may not read for a long time. It then holds only the message, and the
                # changes of those that follow it.
                del update
                while unsent:
                    message = self._message(unsent.pop(0), tokens, to_owner=to_owner)
                    # A watch that was once sent something is slow, and is never ended for it.
                    await call.write(await message, refuse=call.sent == 0)
                if rest:
                    await call.write(rest)

    async def _message(self, part: "_Part", tokens: "_Tokens", *, to_owner: bool) -> bytes:
        changes, carriers, at = part.changes, part.carriers, tokens.token_at(part.through)
        # Between two cursors there are fewer changes once jobs have changed again. A number of them
        # says which they are. The carriers tell apart what a watch gets that catches up, and one
        # that has.
        key = part.after, at, len(changes), len(carriers), to_owner
        if not carriers and not part.deleted:
            make = partial(changes_message, changes, at, to_owner=to_owner)
            return self.messages.get(key, make)

        async def read() -> bytes:
            # For all watches that are sent it.
            assets = await deleted_assets(self.reads, part.deleted, SERVICE)
            if len(assets) < len(part.deleted):  # forgotten since
                raise FeedCompacted
            found = await payloads_of(self.reads, [each.job for each in carriers], SERVICE)
            payloads = {
                change.seq: each
                for change, each in zip(carriers, found, strict=True)
                if each is not None
            }
            return changes_message(changes, at, payloads, assets, to_owner=to_owner)

        return await self.messages.read(key, read)


def _rest(update: FeedUpdate | None, cursor: Cursor, tokens: "_Tokens") -> bytes:
    """Return what follows the changes of an update: `synced`, or a heartbeat without an update."""
    if update is not None and not update.synced:
        return b""
    rest = pb.WatchJobsResponse(resume_token=tokens.token_at(cursor))
    if update is None:
        rest.heartbeat = True
    else:
        rest.synced = True
    return rest.SerializeToString()


@dataclass(frozen=True, slots=True)
class _Part:
    """The changes of one message, which lead from one cursor to another.

    `carriers` are those that are sent with their jobs' payloads, `deleted` the deleted jobs that
    are sent with their assets.
    """

    changes: Sequence[Change]
    carriers: Sequence[Change]
    deleted: Sequence[Job]
    after: Cursor
    through: Cursor


def _parts(
    update: FeedUpdate | None, through: Cursor, most: int, *, full: bool, assets: bool
) -> list[_Part]:
    """Cut the changes of an update, which leads to `through`, into messages of `most` bytes.

    `full` and `assets` say whether they have payloads, and the assets of deleted jobs.
    """
    if update is None:
        return []
    after, listed = update.after, update.after.listed is not None
    parts: list[_Part] = []
    changes: list[Change] = []
    carriers: list[Change] = []
    deleted: list[Job] = []
    room = most
    for change in update.changes:
        job = change.job
        # A job that is reported while others are listed is no longer in the list.
        carries = full and not change.deleted and (update.catching_up or _is_carrier(change))
        size = CHANGE_BYTES + change.content_bytes + (job.payload_bytes if carries else 0)
        removed = assets and change.deleted and job.asset_count > 0
        size += assets_bytes(job) if removed else 0
        room -= size
        if changes and room < 0:
            last = changes[-1]
            position = ActivePosition(last.job.user_id, last.job.id) if listed else None
            at = Cursor(after.seq if listed else last.seq, position)
            parts.append(_Part(changes, carriers, deleted, after, at))
            after, changes, carriers, deleted = at, [], [], []
            room = most - size
        changes.append(change)
        if carries and job.payload_bytes:
            carriers.append(change)
        if removed:
            deleted.append(job)
    if changes:
        parts.append(_Part(changes, carriers, deleted, after, through))
    return parts


def _is_carrier(change: Change) -> bool:
    """Whether a change in the view FULL always has payloads.

    Those before the start have them, for an update may stand for the creation, and so have
    transitions.
    """
    return change.job.status is JobStatus.QUEUED or bool(change.transitions)


def selection_key(selection: Selection) -> bytes:
    """Return the key of a selection's tokens: a digest, as a selection may have many ids."""
    return hashlib.blake2b(repr(selection.key()).encode(), digest_size=16).digest()


class _Tokens:
    """Cursors of one selection in one feed, as tokens."""

    def __init__(self, epoch: str, selection: Selection) -> None:
        self._epoch = epoch
        self._key = selection_key(selection)

    def token_at(self, cursor: Cursor) -> str:
        position = cursor.listed
        listed = "" if position is None else f"{position.job_id}/{quote(position.user_id, safe='')}"
        return token(self._key, f"{self._epoch}/{cursor.seq}/{listed}")

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
        return Cursor(int(parts["seq"]), listed)
