"""The port to what is stored of jobs' output. Its errors are those of `store`."""

from collections.abc import Collection
from typing import Protocol

from jobledger_server.domain.job import JobId
from jobledger_server.domain.output import OutputPiece, OutputTail


class Outputs(Protocol):
    """Reads what jobs wrote. A stream is a job and a name."""

    async def read(
        self, after: Collection[tuple[JobId, str, int]], *, limit: int
    ) -> list[OutputPiece]:
        """Return pieces of several streams, each stream's in order.

        Args:
            after: The streams, each with an offset: its pieces that begin there or later.
            limit: Pieces of each stream at most.
        """

    async def piece_at(self, job_id: JobId, stream: str, offset: int) -> int | None:
        """Return where the last piece begins that does so at this offset or before it.

        None if none does.
        """

    async def tail(self, job_id: JobId, stream: str) -> OutputTail:
        """Return the end of a stream; EMPTY if nothing is stored of it."""
