"""Quotas for creations: what is created while jobs are counted counts too."""

import asyncio
from typing import Any

import pytest

from jobledger_server.admission.caller import Caller, Permissions, Quotas
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.rpc.jobs.creation_quotas import CreationQuotas
from jobledger_server.tuning import Tuning


class SlowCount:
    """A database that had no jobs when a count began, and answers when it is let go."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def count_active(self, _user_id: str, *, limit: int) -> int:
        self.asked.set()
        await self.answers.wait()
        return 0


async def test_jobs_created_during_a_count_are_counted() -> None:
    now = 0.0
    store: Any = SlowCount()
    quotas = CreationQuotas(store, clock=lambda: now)
    eve = Caller("eve", permissions=Permissions(quotas=Quotas(unfinished_jobs=10)))

    async def create(count: int) -> None:
        async with quotas.creating(eve, {"ada": count}):
            pass

    async with quotas.creating(eve, {"ada": 10}):
        now = 2 * Tuning().count_seconds
        store.asked.clear()
        store.answers.clear()
        late = asyncio.ensure_future(create(10))
        await store.asked.wait()
    store.answers.set()
    with pytest.raises(LimitExceeded):
        await late
    assert quotas.refused == {"caller": 1}


async def test_jobs_whose_caller_has_cancelled_the_call_are_counted() -> None:
    """They are created anyway: else a caller could create as many as it cancels in a second."""
    store: Any = SlowCount()
    quotas = CreationQuotas(store, clock=lambda: 0.0)
    eve = Caller("eve", permissions=Permissions(quotas=Quotas(unfinished_jobs=10)))

    async def create(count: int, answer: asyncio.Future[None]) -> None:
        async with quotas.creating(eve, {"ada": count}):
            await answer

    answer = asyncio.get_running_loop().create_future()
    call = asyncio.ensure_future(create(6, answer))
    await store.asked.wait()
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    with pytest.raises(LimitExceeded):
        await create(5, answer)

    refused = asyncio.get_running_loop().create_future()
    refused.set_exception(LookupError)
    with pytest.raises(LookupError):
        await create(4, refused)
    answer = asyncio.get_running_loop().create_future()
    answer.set_result(None)
    await create(4, answer)
