"""A deliverer in this process, a service and a receiver, with real connections between them."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobledger_gateway.settings import WebhookSettings
from jobledger_gateway.webhooks.deliverer import deliver
from tests.support.webhook_receiver import Receiver

LOOPBACK = (ipaddress.IPv4Network("127.0.0.0/8"),)


def quick(**settings: Any) -> WebhookSettings:
    """Return settings with short waits."""
    waits = {"first_backoff": 0.02, "max_backoff": 0.2, "poll": 0.05, "save": 0.01, "end": 0.1}
    return WebhookSettings(**{"networks": LOOPBACK, **waits, **settings})


@contextlib.asynccontextmanager
async def delivering(target: str, **settings: Any) -> AsyncIterator[None]:
    """Deliver the webhooks of a service during the block."""
    task = asyncio.create_task(deliver(quick(**settings), target, None, 10.0))
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver
