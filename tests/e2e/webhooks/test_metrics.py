"""What a gateway's metrics say of webhooks: backlog, failures, and those that were disabled."""

import asyncio
from typing import Any

import pytest

from jobledger import AsyncClient
from jobledger_gateway import metrics
from tests.e2e.webhooks.conftest import delivering
from tests.e2e.webhooks.test_deliveries import ended
from tests.support.ports import free_port
from tests.support.scraping import scraped
from tests.support.webhook_receiver import Receiver, accepted, always


@pytest.fixture
async def client(app: Any) -> Any:
    async with AsyncClient(app.address, user_id="ada") as client:
        yield client


async def until(address: str, **expected: float) -> dict[str, float]:
    """Return the metrics once these have these values."""
    async with asyncio.timeout(30):
        while True:
            figures = await scraped(address)
            named = {f"jobledger_gateway_{name}": value for name, value in expected.items()}
            if figures.items() >= named.items():
                return figures
            await asyncio.sleep(0.02)


async def test_a_backlog_is_shown_until_it_is_delivered(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    address = f"127.0.0.1:{free_port()}"
    failed = 'jobledger_gateway_webhook_deliveries_total{outcome="failed"}'
    delivered = 'jobledger_gateway_webhook_deliveries_total{outcome="delivered"}'
    receiver.answer = always(500)
    await client.create_webhook(receiver.url)
    async with metrics.serving_metrics(address):
        before = await scraped(address)
        async with delivering(app.address):
            await until(address, webhooks=1, webhook_pending=0)
            for _ in range(3):
                await ended(client)
            figures = await until(address, webhook_pending=3)
            assert figures[failed] >= before[failed] + 3
            assert figures["jobledger_gateway_webhook_oldest_pending_seconds"] > 0
            receiver.answer = accepted
            figures = await until(
                address, webhook_pending=0, webhook_oldest_pending_seconds=0, webhooks=1
            )
            assert figures[delivered] == before[delivered] + 3
            disabled = figures["jobledger_gateway_webhooks_disabled_total"]
            receiver.answer = always(410)
            await ended(client)
            await until(address, webhooks_disabled_total=disabled + 1, webhooks=0)
