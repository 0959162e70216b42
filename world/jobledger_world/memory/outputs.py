"""What jobs wrote; see `output_store.Outputs`."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from operator import attrgetter

from jobledger_server.domain.job import Job, JobId
from jobledger_server.domain.output import EMPTY, OutputCut, OutputPiece, OutputTail, Tails
from jobledger_server.store import StoreConflict
from jobledger_world.memory.link import Database
from jobledger_world.memory.tables import Tables

_start = attrgetter("start")


class MemoryOutputs:
    """Reads the output that is committed."""

    def __init__(self, database: Database) -> None:
        self._database, self._tables = database, database.tables

    async def read(
        self, after: Collection[tuple[JobId, str, int]], *, limit: int
    ) -> list[OutputPiece]:
        def read() -> list[OutputPiece]:
            found = []
            for job_id, stream, start in after:
                pieces = self._tables.outputs.get((job_id, stream), [])
                first = bisect_left(pieces, start, key=_start)
                found += pieces[first : first + limit]
            return found

        return await self._database.read(read)

    async def piece_at(self, job_id: JobId, stream: str, offset: int) -> int | None:
        def read() -> int | None:
            pieces = self._tables.outputs.get((job_id, stream), [])
            after = bisect_right(pieces, offset, key=_start)
            return pieces[after - 1].start if after else None

        return await self._database.read(read)

    async def tail(self, job_id: JobId, stream: str) -> OutputTail:
        return await self._database.read(lambda: tail_of(self._tables, job_id, stream))


def tail_of(tables: Tables, job_id: JobId, stream: str) -> OutputTail:
    """Return the end of a stream."""
    pieces = tables.outputs.get((job_id, stream))
    if not pieces:
        return EMPTY
    last = pieces[-1]
    return OutputTail(last.end, last.attempt, last.number, pieces[0].start, len(pieces))


def tails_of(tables: Tables, job: Job) -> Tails:
    """Return the streams of a job's output."""
    return {stream: tail_of(tables, job.id, stream) for stream in job.output_streams}


def check(tables: Tables, pieces: Sequence[OutputPiece]) -> None:
    """Raise StoreConflict unless each piece begins where its stream ends."""
    ends: dict[tuple[JobId, str], int] = {}
    for piece in pieces:
        stream = piece.job_id, piece.stream
        if piece.start != ends.get(stream, tail_of(tables, *stream).end):
            raise StoreConflict(f"{stream} does not end at {piece.start}")
        ends[stream] = piece.end


def write(
    tables: Tables,
    pieces: Sequence[OutputPiece],
    cuts: Sequence[OutputCut],
    deleted: Collection[JobId],
) -> None:
    """Append these pieces, drop what is cut, and the output of deleted jobs."""
    for piece in pieces:
        tables.outputs.setdefault((piece.job_id, piece.stream), []).append(piece)
    for cut in cuts:
        stored = tables.outputs[cut.job_id, cut.stream]
        first = bisect_right(stored, cut.before, key=_start) - 1
        del stored[: max(first, len(stored) - cut.kept_pieces)]
    for stream in [stream for stream in tables.outputs if stream[0] in deleted]:
        del tables.outputs[stream]
