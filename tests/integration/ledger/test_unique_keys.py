"""Creations with unique keys."""

import pytest

from jobledger_server.domain.commands import Create
from jobledger_server.domain.errors import RequestIdReused, UniqueKeyTaken
from jobledger_server.ledger.ledger import Ledger
from tests.support.ledger_calls import apply


def creation(request_id: str = "", job_type: str = "t", *, returns: bool = False) -> Create:
    return Create(
        user_id="ada",
        job_type=job_type,
        request_id=request_id,
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
