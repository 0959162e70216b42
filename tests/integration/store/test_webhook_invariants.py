"""What `check` says of webhooks that contradict themselves."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import update

from jobledger_server.check.invariants import violations
from jobledger_server.sql.database import Database
from jobledger_server.sql.tables import webhooks
from jobledger_server.store import Store
from tests.integration.store.test_webhooks import webhook


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ({"holder": "d"}, "a webhook has a lease if somebody holds it, who has claimed it"),
        (
            {"holder": "d", "lease_expire_time": 5},
            "a webhook has a lease if somebody holds it, who has claimed it",
        ),
        ({"disable_time": 5}, "a disabled webhook has a reason, and nobody holds it"),
        ({"pending_count": 7}, "a webhook counts its pending deliveries"),
        ({"previous_secret": "s"}, "a webhook's previous secret has an end"),
    ],
)
async def test_webhooks_that_contradict_themselves_are_found(
    store: Store, database: Database, damaged: None, damage: Mapping[str, Any], rule: str
) -> None:
    await store.webhooks.add(webhook())
    assert await violations(database) == []
    async with database.writer.begin() as connection:
        await connection.execute(update(webhooks).values(**damage))
    (found,) = await violations(database)
    assert found.startswith(f"{rule}: ")
