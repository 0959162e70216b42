"""The statements about output, and the parts that both databases' ones have in common."""

from typing import TYPE_CHECKING

from jobledger_server.sql.tables import outputs
from jobledger_server.sql.write_statements import Cut, Deletion, Insertion

if TYPE_CHECKING:
    from jobledger_server.sql.dialect import Dialect

PIECE_COLUMNS = "job_id, stream, start, attempt, number, data"
"""The columns of `outputs`: the fields of an `output.OutputPiece`."""

TAIL_COLUMNS = "start + length(data), attempt, number"
"""What is read of the newest piece of a stream, for the fields of an `output.OutputTail`."""

STORED_COLUMNS = "(SELECT min(start) {of_stream}), (SELECT count(*) {of_stream})"
"""What is read of all of its pieces."""

NEWEST_PIECES = "SELECT start {of_stream} ORDER BY start DESC LIMIT 1 OFFSET {skipped}"
"""The query for where the newest pieces begin, but for so many of them."""

OF_STREAM = "FROM outputs WHERE job_id = {job_id} AND stream = {stream}"
"""The end of a query for the pieces of a stream."""

# A later piece is stored: the tail by which this one was decided is an old one. NULL is refused.
_START = (
    "CASE WHEN EXISTS (SELECT 1 FROM outputs AS old"
    " WHERE old.job_id = new.job_id AND old.stream = new.stream AND old.start >= new.start)"
    " THEN NULL ELSE new.start END"
)

# All pieces before the last one that begins at the offset or before it, so never the newest.
_CUT = (
    "JOIN outputs AS old ON old.job_id = new.cut_job_id AND old.stream = new.cut_stream"
    " AND old.start < (SELECT max(kept.start) FROM outputs AS kept"
    " WHERE kept.job_id = new.cut_job_id AND kept.stream = new.cut_stream"
    " AND kept.start <= new.cut_start)"
)


class OutputStatements:
    """What a batch writes of output."""

    def __init__(self, dialect: "Dialect") -> None:
        self.insert = Insertion(outputs, outputs.c.keys(), inserted={"start": _START})
        self.cut = Cut(outputs, _CUT, dialect.rows_of)
        self.delete = Deletion(outputs, "job_id")
