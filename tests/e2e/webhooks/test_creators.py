"""A webhook ends with its creator's rule in the access file."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jobledger import AsyncClient, Webhook
from jobledger_server.ledger.ids import IdSource
from jobledger_server.webhook_store import Webhook as StoredWebhook
from tests.e2e.webhooks.conftest import delivering
from tests.support.access_file import rule, write_access_file
from tests.support.webhook_receiver import Receiver

ADA = rule("ada", 'roles = ["owner", "worker"]\nusers = ["ada"]\njob_types = ["*"]')
ADA_READS = rule(
    "ada", 'methods = ["WebhookService/ListWebhooks", "JobService/WatchJobs"]\nusers = ["ada"]'
)
EVE = rule("eve", 'roles = ["owner", "worker"]\nusers = ["ada"]\njob_types = ["*"]')
OPERATOR = rule("gateway", 'roles = ["operator"]')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "access.toml"
    write_access_file(path, ADA + EVE + OPERATOR)
    return path


@pytest.fixture
async def app(start: Any, file: Path) -> Any:
    return await start(access=file)


async def ended(client: AsyncClient) -> str:
    job = await client.create_job("render")
    started = await client.transition_job(job.id, "PROCESSING")
    await client.mark_completed(job.id, attempt=started.attempt)
    return job.id


async def disabled(client: AsyncClient) -> Webhook:
    """Wait until the only webhook is disabled; return it."""
    async with asyncio.timeout(30):
        while True:
            (webhook,) = [each async for each in client.list_webhooks()]
            if webhook.disable_time is not None:
                return webhook
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("rules", ["", ADA_READS], ids=["none", "reads"])
async def test_a_webhook_ends_with_its_creators_rule(
    app: Any, file: Path, receiver: Receiver, rules: str
) -> None:
    async with (
        AsyncClient(app.address, user_id="ada", token="ada") as ada,
        AsyncClient(app.address, user_id="ada", token="eve") as eve,
    ):
        created = await ada.create_webhook(receiver.url)
        assert created.webhook.creator == "token:ada"
        async with delivering(app.address, token="gateway"):
            first = await ended(ada)
            await receiver.until(lambda: len(receiver.succeeded) == 1)
            write_access_file(file, rules + EVE + OPERATOR)
            found = await disabled(eve)
            assert found.disable_reason == "the access file does not permit its creator to have it"
            second = await ended(eve)
            assert [each.job_id for each in receiver.received] == [first]
            # Whoever may have it, and enables it, is its creator from then on.
            enabled = await eve.enable_webhook(found.id)
            assert enabled.creator == "token:eve"
            await receiver.until(lambda: len(receiver.succeeded) == 2)
        assert receiver.succeeded[-1].job_id == second


async def test_a_new_token_of_the_same_rule_keeps_its_webhooks(
    app: Any, file: Path, receiver: Receiver
) -> None:
    async with AsyncClient(app.address, user_id="ada", token="ada") as ada:
        await ada.create_webhook(receiver.url)
    renewed = rule("ada", 'roles = ["owner", "worker"]\nusers = ["ada"]\njob_types = ["*"]', "new")
    write_access_file(file, renewed + OPERATOR)
    async with (
        AsyncClient(app.address, user_id="ada", token="new") as ada,
        delivering(app.address, token="gateway"),
    ):
        async with asyncio.timeout(30):
            while True:
                try:
                    job_id = await ended(ada)
                    break
                except PermissionError:
                    await asyncio.sleep(0.1)
        await receiver.until(lambda: bool(receiver.succeeded))
    assert receiver.succeeded[0].job_id == job_id


async def test_a_webhook_that_was_created_without_an_access_file_is_disabled_with_one(
    app: Any,
) -> None:
    webhook = StoredWebhook(
        id=IdSource().new_id(1),
        user_id="ada",
        url="https://example.com/hook",
        job_types=[],
        labels={},
        transitions=[],
        secret="whsec_c2VjcmV0",
        cursor="",
    )
    await app.store.webhooks.add(webhook)
    async with (
        AsyncClient(app.address, user_id="ada", token="ada") as ada,
        delivering(app.address, token="gateway"),
    ):
        assert (await disabled(ada)).id == webhook.id
