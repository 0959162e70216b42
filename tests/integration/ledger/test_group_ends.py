"""What could end a group is decided with all that the batch changes of its jobs."""

import pytest

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Cancel, Command, Create, NewGroup, Seal
from jobledger_server.domain.job import JobStatus
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import Store
from tests.support.ledger_calls import apply


@pytest.mark.parametrize("kind", [Seal, Cancel])
async def test_a_group_does_not_end_before_a_job_of_the_same_batch(
    ledger: Ledger, store: Store, kind: type[Seal | Cancel]
) -> None:
    create = Create(user_id="ada", job_type="album", group=NewGroup())
    group = (await apply(ledger, create)).job
    commands: list[Command] = [
        Create(user_id="ada", job_type="page", group_id=group.id),
        kind(job_id=group.id, user_id="ada"),
    ]
    assert not any(isinstance(each, Exception) for each in await ledger.submit(commands, SERVICE))
    found = (await store.read_jobs([group.id], full=False))[group.id].job
    assert found.children is not None
    assert (found.status, found.children.total, found.children.sealed) == (
        JobStatus.QUEUED,
        1,
        True,
    )
