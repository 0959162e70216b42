"""A connection to PostgreSQL that loses nothing where a synchronous standby does not answer.

PostgreSQL commits a transaction at the primary, and then waits for its synchronous standby. Until
that has answered, nobody else sees the transaction. Two things end the wait too early: a cancel
request, and a crash of the primary. Then everybody sees what the standby may not have.
"""

import asyncio
import math
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[Any]
else:  # which has no parameter when the program runs
    _Connection = asyncpg.Connection

Result = TypeVar("Result")

# The message goes into the write-ahead log, so that the statement has something to commit.
_COMMIT = (
    "SELECT CASE WHEN NOT pg_is_in_recovery()"
    " THEN pg_logical_emit_message(true, 'jobledger', '') END"
)


class PostgresqlConnection(_Connection):
    """Closes the socket where a commit takes too long, or its caller is cancelled.

    The driver would send a cancel request. A backend whose client is gone goes on waiting.
    """

    commit_seconds: float | None = None
    """How long a commit may take."""

    async def catch_up(self, seconds: float | None) -> None:
        """Commit something: what this connection can see by then is on the standby as well.

        Raises:
            TimeoutError: It takes too long. A cancel request does no harm: nothing is written.
            asyncpg.ReadOnlySQLTransactionError: The database is a standby itself.
        """
        row = await self.fetchrow(_COMMIT, timeout=seconds)
        if row is None or row[0] is None:
            raise asyncpg.ReadOnlySQLTransactionError("the database is a standby")

    async def execute(
        self,
        query: str,
        *args: Any,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> str:
        # SQLAlchemy's transactions, too, are committed by this method.
        if not query.startswith("COMMIT"):
            return await super().execute(query, *args, timeout=timeout)
        return await self._answered(super().execute(query, timeout=math.inf))

    async def fetch_committed(self, query: str, *args: Any) -> Sequence[Any]:
        """Run a statement that is a transaction by itself, and return its rows."""
        return await self._answered(super().fetch(query, *args, timeout=math.inf))

    async def _answered(self, commit: Coroutine[Any, Any, Result]) -> Result:
        task = asyncio.create_task(commit)
        try:
            await asyncio.wait([task], timeout=self.commit_seconds)
        finally:
            if not task.done():
                self.terminate()
                task.add_done_callback(_retrieve_error)
        if task.done():
            return task.result()
        raise TimeoutError


def _retrieve_error(task: asyncio.Task[Any]) -> None:
    """Keep asyncio from logging an error that nobody waits for."""
    if not task.cancelled():
        task.exception()
