"""Event streams of one address."""

import asyncio

import pytest

from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.gateway.attacks import event_streams
from tests.robustness.abuse.gateway.good_browser import browser_alone, good_browser
from tests.support.databases import sqlite_only
from tests.support.gateway_process import GatewayProcess
from tests.support.server_process import MIB


@pytest.mark.slow
@sqlite_only
async def test_event_streams_of_one_address_are_limited_whatever_their_tokens(
    gateway: GatewayProcess,
) -> None:
    alone = await browser_alone(gateway)
    options = {"path": "/v1/events?user_id=eve", "streams": 10_000}
    async with attack(event_streams, gateway.target, **options) as attacker:
        await attacker.begun()
        async with good_browser(gateway) as good:
            await asyncio.sleep(3)
        assert (await attacker.report()).get("200", 0) <= 500
    good.assert_served(alone)
    assert gateway.peak_memory < 300 * MIB
