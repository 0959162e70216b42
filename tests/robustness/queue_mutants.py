"""Ways to break how queues and keys are counted, each ruled out by one of the promises.

They break the server itself: what stands before it cannot, for clients do not see the counters.
"""

from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from jobledger_server.domain.job import Phase
from jobledger_server.domain.queues import KeyState, Tally
from jobledger_server.ledger import ledger
from jobledger_server.ledger.known_limits import KnownLimits
from jobledger_server.ledger.unblocking import Unblocked
from jobledger_server.sql.database import Database
from jobledger_server.sql.transaction import SqlTransaction


async def counts_too_little(patch: pytest.MonkeyPatch, database: Database) -> None:
    """Some jobs that end are still counted."""
    add, seen = Tally.add, 0

    def mutant(tally: Tally, before: Any, after: Any) -> None:
        nonlocal seen
        seen += after.phase is None
        if after.phase is not None or seen % 20:
            add(tally, before, after)

    patch.setattr(Tally, "add", mutant)


async def ignores_limits(patch: pytest.MonkeyPatch, database: Database) -> None:
    """A full key has a free slot."""
    patch.setattr(KeyState, "free", property(lambda state: 0 if state.paused else 9))


async def ignores_pauses_of_keys(patch: pytest.MonkeyPatch, database: Database) -> None:
    """Jobs start although their key is paused."""
    free = KeyState.free.fget
    patch.setattr(KeyState, "free", property(lambda state: free(replace(state, paused=False))))


async def ignores_pauses_of_types(patch: pytest.MonkeyPatch, database: Database) -> None:
    """Jobs start although their type is paused."""
    patch.setattr(KnownLimits, "is_paused", lambda *_: False)


async def forgets_blocked_jobs(patch: pytest.MonkeyPatch, database: Database) -> None:
    """Nobody looks for blocked jobs when a slot becomes free."""
    add = Tally._add_key  # noqa: SLF001

    def mutant(tally: Tally, key: Any, old: Any, new: Any) -> None:
        add(tally, key, old, new)
        key.recheck = key.freed = False

    async def nothing(*_: object, **__: object) -> Unblocked:
        return Unblocked()

    patch.setattr(Tally, "_add_key", mutant)
    patch.setattr(ledger, "unblock_freed", nothing)


async def counts_turns_twice_over(patch: pytest.MonkeyPatch, database: Database) -> None:
    """Each turn puts its tenant far behind the others."""
    add = Tally.add

    def mutant(tally: Tally, before: Any, after: Any) -> None:
        add(tally, before, after)
        for queue in tally.queues.values():
            if queue.claimed and after.phase is Phase.HELD:
                queue.claimed += 500

    patch.setattr(Tally, "add", mutant)


async def ignores_unique_keys(patch: pytest.MonkeyPatch, database: Database) -> None:
    """Several active jobs have one unique key."""

    async def mutant(*_: object) -> dict[Any, Any]:
        return {}

    patch.setattr(SqlTransaction, "find_active", mutant)
    async with database.writer.begin() as connection:
        await connection.execute(text("DROP INDEX IF EXISTS uq_jobs_unique_key"))
