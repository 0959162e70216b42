"""Creations with unique keys."""

import pytest

from jobledger_server.domain.commands import Cancel, Create
from jobledger_server.domain.errors import RequestIdReused, UniqueKeyTaken
from jobledger_server.domain.job import Job, JobId
from jobledger_server.ledger.ledger import Ledger
from tests.support.ledger_calls import apply


def creation(
    request_id: str = "", *, returns: bool = False, origin_job_id: JobId | None = None
) -> Create:
    return Create(
        user_id="ada",
        job_type="t",
        request_id=request_id,
        origin_job_id=origin_job_id,
        unique_key="invoice-1",
        return_existing=returns,
        max_attempts=1 + returns,
    )


@pytest.mark.parametrize("returns", [False, True])
async def test_a_repeated_creation_gets_its_own_job_although_that_has_the_unique_key(
    ledger: Ledger,
    returns: bool,  # noqa: FBT001
) -> None:
    """The first answer may have been lost. Request ids are looked up only if there is a reason."""
    job = (await apply(ledger, creation("r-1", returns=returns))).job
    assert (await apply(ledger, creation("r-1", returns=returns))).job == job
    with pytest.raises(RequestIdReused):
        await apply(ledger, creation("r-1", returns=not returns))
    with pytest.raises(UniqueKeyTaken):
        await apply(ledger, creation("r-2"))


async def cancelled(ledger: Ledger, created: Create) -> Job:
    """Create a job and end it, so that its unique key is free again."""
    job = (await apply(ledger, created)).job
    return (await apply(ledger, Cancel(job_id=job.id, user_id="ada", reason=""))).job


@pytest.mark.parametrize("returns", [False, True])
async def test_a_repeated_creation_gets_its_own_job_although_another_one_has_the_key_by_now(
    ledger: Ledger,
    returns: bool,  # noqa: FBT001
) -> None:
    ended = await cancelled(ledger, creation("r-1", returns=returns))
    await apply(ledger, creation("r-2"))
    assert (await apply(ledger, creation("r-1", returns=returns))).job == ended


async def test_a_job_that_was_repeated_is_found_although_another_one_has_the_key_by_now(
    ledger: Ledger,
) -> None:
    origin = await cancelled(ledger, creation())
    repetition = await cancelled(ledger, creation(origin_job_id=origin.id))
    await apply(ledger, creation())
    assert (await apply(ledger, creation(origin_job_id=origin.id))).job == repetition
