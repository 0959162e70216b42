"""Webhooks of one owner: each end of a job is posted to all of them."""

import asyncio
from pathlib import Path

import pytest

from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.gateway.good_browser import browser_alone, good_browser
from tests.robustness.abuse.gateway.webhook_attacks import webhooks
from tests.support.gateway_process import GatewayProcess
from tests.support.server_process import MIB, ServerProcess

MEASURED = 10
"""Seconds under attack."""

DELIVERING = ("--webhooks", "--webhook-allow-network", "127.0.0.0/8", "--no-access-log")


@pytest.mark.slow
async def test_webhooks_of_one_owner_delay_neither_health_nor_other_owners(
    tmp_path: Path,
) -> None:
    async with ServerProcess(tmp_path) as server:
        with GatewayProcess(server.target, DELIVERING) as gateway:
            alone = await browser_alone(gateway)
            async with attack(webhooks, server.target) as attacker:
                await attacker.begun()
                async with good_browser(gateway) as good:
                    await asyncio.sleep(MEASURED)
                report = await attacker.report()
            assert report["delivered"] > report["webhooks"]  # else nothing was measured
            good.assert_served(alone)
            assert gateway.peak_memory < 300 * MIB
            assert server.peak_memory < 600 * MIB
