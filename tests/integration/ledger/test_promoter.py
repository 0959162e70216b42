"""The promoter and the unblocker: jobs that wait go on, and claims that wait for them are woken."""

import asyncio
from contextlib import ExitStack

import pytest

from jobledger_server.check.invariants import violations
from jobledger_server.domain.commands import Create
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance import unblocker as unblocker_module
from jobledger_server.maintenance.promoter import Promoter
from jobledger_server.maintenance.unblocker import Unblocker
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.tuning import Tuning
from tests.support.databases import execute, sqlite_only
from tests.support.ledger_calls import apply
from tests.support.seeding import seed
from tests.support.tasks import running

SECONDS = 20
"""For what happens at once, or never."""

BATCH = Tuning().promote_batch


@sqlite_only
async def test_many_due_jobs_are_promoted_in_steps(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    """No more than a batch at once, and all without being told again."""
    await seed(database, 3 * BATCH + 1, schedule_time=1)
    promoter = Promoter(store, ledger, ClaimWaiters())
    promoted: list[int] = []
    promote = promoter.promote
    done = asyncio.Event()

    async def counted() -> int:
        promoted.append(await promote())
        if promoted[-1] < BATCH:
            done.set()
        return promoted[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promoter, "promote", counted)
        async with running(promoter.run()), asyncio.timeout(SECONDS):
            promoter.wanted.set()
            await done.wait()
    assert promoted == [BATCH, BATCH, BATCH, 1]
    assert await violations(database) == []


async def test_a_promotion_wakes_as_many_claims_as_there_are_jobs(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    """Each takes its job without a query."""
    await seed(database, 3, schedule_time=1, job_type="render")
    waiters = ClaimWaiters()
    with ExitStack() as stack:
        waiting = [stack.enter_context(waiters.waiting(["render"])) for _ in range(5)]
        promoter = Promoter(store, ledger, waiters)
        assert await promoter.promote() == 3
        assert [waiter.woken_for for waiter in waiting] == ["render"] * 3 + [None] * 2
        assert len({oldest.id for waiter in waiting if (oldest := waiter.reset())}) == 3
        assert await promoter.promote() == 0
    assert await violations(database) == []


async def test_a_due_job_whose_key_is_full_is_blocked_and_looked_at_again(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    """A claim would only pass over it, so none is woken for it."""
    await seed(database, 3, schedule_time=1, job_type="render", concurrency_key="full")
    ledger.known_limits.saw("full", full=True)
    waiters = ClaimWaiters()
    promoter = Promoter(store, ledger, waiters)
    with waiters.waiting(["render"]) as waiter:
        assert await promoter.promote() == 3
        assert waiter.woken_for is None
        assert await violations(database) == []
        assert ledger.recheck.is_set()
        await Unblocker(store, ledger, waiters).unblock()  # the key is not full
        assert waiter.woken_for == "render"
    assert await violations(database) == []


@sqlite_only
async def test_concurrency_keys_take_turns(
    store: SqlStore, ledger: Ledger, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look is at few keys, and a key stays marked while more of its jobs may follow."""
    for number in range(3):
        creation = Create(user_id="ada", job_type="t", concurrency_key=f"k{number}")
        ledger.known_limits.saw(creation.concurrency_key, full=True)
        await apply(ledger, creation)
    looked_at: list[str] = []
    unblock = unblocker_module.unblock

    async def counted(store: SqlStore, known: object, key: str, *, most: int) -> object:
        looked_at.append(key)
        found = await unblock(store, known, key, most=most)
        await execute(database, "UPDATE limit_keys SET recheck = 1")
        return found

    monkeypatch.setattr(unblocker_module, "unblock", counted)
    unblocker = Unblocker(store, ledger, ClaimWaiters(), Tuning(rechecked_keys=2))
    assert [await unblocker.unblock() for _ in range(3)] == [True, False, True]
    assert looked_at == ["k0", "k1", "k2", "k0", "k1"]
