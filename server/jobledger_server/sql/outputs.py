"""What is read of jobs' output."""

from collections.abc import Collection

from jobledger_server.domain.job import JobId
from jobledger_server.domain.output import EMPTY, OutputPiece, OutputTail
from jobledger_server.sql.dialect import Dialect
from jobledger_server.sql.store_connections import StoreConnections


class SqlOutputs:
    """See `output_store.Outputs`."""

    def __init__(self, connections: StoreConnections, dialect: Dialect) -> None:
        self._connections = connections
        self._dialect = dialect

    async def read(
        self, after: Collection[tuple[JobId, str, int]], *, limit: int
    ) -> list[OutputPiece]:
        return [
            OutputPiece(*row)
            for statement, values in self._dialect.find_pieces(after, limit=limit)
            for row in await self._connections.fetch(statement, values)
        ]

    async def piece_at(self, job_id: JobId, stream: str, offset: int) -> int | None:
        ((start,),) = await self._connections.fetch(
            *self._dialect.find_piece_at(job_id, stream, offset)
        )
        return None if start is None else int(start)

    async def tail(self, job_id: JobId, stream: str) -> OutputTail:
        rows = await self._connections.fetch(*self._dialect.find_tails([(job_id, stream)]))
        return OutputTail(*rows[0][2:]) if rows else EMPTY
