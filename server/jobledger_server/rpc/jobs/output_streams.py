"""WatchOutput and ReadOutput: pieces of a stream of a job's output as messages."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.domain.errors import JobNotFound
from jobledger_server.domain.job import JobId
from jobledger_server.domain.limits import MAX_OUTPUT_PIECE_BYTES
from jobledger_server.domain.output import OutputPiece
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.ledger.reads import Reads
from jobledger_server.output_store import Outputs
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.jobs.output_requests import OutputPlace
from jobledger_server.rpc.jobs.shared_messages import SharedMessages
from jobledger_server.rpc.stream_age import StreamAge
from jobledger_server.tuning import Tuning
from jobledger_server.watch.outputs import OutputHub, OutputWatch


@dataclass(frozen=True, slots=True)
class OutputStreams:
    """Serves output. Whoever is behind reads the table, in turn with others."""

    hub: OutputHub
    outputs: Outputs
    reads: Reads
    heartbeat: float
    max_age: float
    tuning: Tuning
    messages: SharedMessages

    async def read(self, place: OutputPlace, max_bytes: int, call: Call) -> bytes:
        """Return the answer with the piece at a place."""
        job_id, stream = place.job_id, place.stream
        # First the job: what it had written when it ended is stored.
        read = await self.reads.job(job_id, place.user_id, call.caller, full=False)
        async with self.hub.turns.turn(call.caller):
            tail = await self.outputs.tail(job_id, stream)
        cursor = place.cursor(tail.end)
        pieces: Sequence[OutputPiece] = ()
        if cursor < tail.end:
            pieces = await self._read(job_id, stream, cursor, call, within=True)
        # Something is stored of a stream that was begun, but for a job that was deleted since.
        begun = stream in read.job.output_streams
        if (begun and not tail.end) or (cursor < tail.end and not pieces):
            raise JobNotFound(job_id)
        start, end, attempt = _span(pieces, cursor, max_bytes)
        up_to_date = end >= tail.end
        return pb.ReadOutputResponse(
            offset=start,
            data=_data(pieces, start, end),
            attempt=attempt,
            next_offset=end,
            up_to_date=up_to_date,
            closed=up_to_date and read.job.status in TERMINAL,
            truncated_before=start if start > cursor else 0,
        ).SerializeToString()

    async def watch(self, place: OutputPlace, call: Call) -> None:
        """Send a stream from a place on, until nothing can follow."""
        job_id, stream = place.job_id, place.stream
        age = StreamAge(self.max_age)
        # Subscribe, then read: the watch learns of what is committed in between.
        with self.hub.subscribe(job_id, stream, call.caller) as watch:
            read = await self.reads.job(job_id, place.user_id, call.caller, full=False)
            watch.read(read.job)
            del read
            async with self.hub.turns.turn(call.caller):
                tail = await self.outputs.tail(job_id, stream)
            if watch.buffer.end is None:
                watch.buffer.begin(tail.end)
            cursor = place.cursor(tail.end)
            within = True  # a piece, perhaps, and not at its beginning
            told = False  # that it is up to date
            while not await self._is_closed(watch, cursor):
                pieces = await self._after(watch, cursor, call, within=within)
                if pieces:
                    message, cursor = self._message(watch, pieces, cursor)
                    within = all(cursor != piece.end for piece in pieces)
                    told = cursor == watch.buffer.end
                    del pieces
                    await call.write(message, refuse=True)
                    del message
                elif not told:
                    told = True
                    await call.write(_position(cursor), refuse=True)
                elif not await watch.wait(age.until_heartbeat(self.heartbeat)):
                    await call.write(_position(cursor))
            await call.write(_position(cursor, closed=True))

    def _message(
        self, watch: OutputWatch, pieces: Sequence[OutputPiece], cursor: int
    ) -> tuple[bytes, int]:
        """Return the message with the next output, and the cursor after it."""
        start, end, attempt = _span(pieces, cursor, MAX_OUTPUT_PIECE_BYTES)
        up_to_date = end == watch.buffer.end
        truncated_before = start if start > cursor else 0

        def make() -> bytes:
            return pb.WatchOutputResponse(
                offset=start,
                data=_data(pieces, start, end),
                attempt=attempt,
                next_offset=end,
                up_to_date=up_to_date,
                truncated_before=truncated_before,
            ).SerializeToString()

        key = watch.stream, start, end, attempt, up_to_date, truncated_before
        return self.messages.get(key, make), end

    async def _is_closed(self, watch: OutputWatch, cursor: int) -> bool:
        """Return whether the client has all that there will be.

        Raises JobNotFound if the job was deleted.
        """
        buffer = watch.buffer
        ended = watch.terminal and buffer.final is None
        if ended and buffer.end is not None and cursor >= buffer.end:
            await self.hub.finish(watch.stream)
        if buffer.final is not None and cursor >= buffer.final:
            return True
        if watch.deleted:
            raise JobNotFound(watch.stream[0])
        return False

    async def _after(
        self, watch: OutputWatch, cursor: int, call: Call, *, within: bool
    ) -> Sequence[OutputPiece]:
        """Return the next pieces that end after the cursor, from the buffer or the table."""
        buffer = watch.buffer
        if buffer.has(cursor):
            return buffer.after(cursor)
        if buffer.end is not None and cursor > buffer.end:
            return ()  # the client is ahead: it waits
        pieces = await self._read(*watch.stream, cursor, call, within=within)
        # None, where the buffer has later ones: they were dropped meanwhile.
        return pieces or buffer.after(cursor)

    async def _read(
        self, job_id: JobId, stream: str, cursor: int, call: Call, *, within: bool
    ) -> Sequence[OutputPiece]:
        async with self.hub.turns.turn(call.caller):
            start = None
            if within and cursor:
                start = await self.outputs.piece_at(job_id, stream, cursor)
            after = [(job_id, stream, cursor if start is None else start)]
            return await self.outputs.read(after, limit=self.tuning.output_page)


def _position(cursor: int, *, closed: bool = False) -> bytes:
    return pb.WatchOutputResponse(
        offset=cursor, next_offset=cursor, up_to_date=True, closed=closed
    ).SerializeToString()


def _span(pieces: Sequence[OutputPiece], cursor: int, max_bytes: int) -> tuple[int, int, int]:
    """Return where the next output begins and ends, and its attempt.

    It begins at the cursor, or later if what was there is not stored any more. It is of one attempt
    and without a gap. If there is none it ends where it begins, and the attempt is 0.
    """
    start = end = cursor
    attempt = 0
    for piece in pieces:
        if piece.end <= end:
            continue
        if not attempt:
            start = end = max(cursor, piece.start)
            attempt = piece.attempt
        elif piece.attempt != attempt or piece.start != end:
            break
        end = piece.end
        if end - start >= max_bytes:
            return start, start + max_bytes, attempt
    return start, end, attempt


def _data(pieces: Sequence[OutputPiece], start: int, end: int) -> bytes:
    """Return the output between two offsets."""
    return b"".join(
        piece.data[max(0, start - piece.start) : end - piece.start]
        for piece in pieces
        if piece.start < end and piece.end > start
    )
