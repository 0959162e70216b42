"""A client of the gateway that does nothing wrong, and how well it is served."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.robustness.abuse.good_client import DEADLINE, Good, calling_in_turn
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Http

ADDRESS = "127.0.0.2"


@asynccontextmanager
async def good_browser(gateway: GatewayProcess, address: str = ADDRESS) -> AsyncIterator[Good]:
    """Create and read a job in turn, and ask for the gateway's health, until the block ends.

    Each request has a connection of its own.
    """
    http = Http(int(gateway.target.rpartition(":")[2]), address=address)
    newest = ""

    async def create() -> None:
        nonlocal newest
        async with asyncio.timeout(DEADLINE):
            made = await http.post("/v1/jobs", {"userId": "good", "jobType": "good"})
        assert made.status == 201, made
        newest = made.json()["job"]["id"]

    async def get() -> None:
        async with asyncio.timeout(DEADLINE):
            read = await http.get(f"/v1/jobs/{newest}?user_id=good")
            healthy = await http.get("/healthz")
        assert (read.status, healthy.status) == (200, 200), (read, healthy)

    await create()
    async with calling_in_turn(create, get) as good:
        yield good


async def browser_alone(gateway: GatewayProcess, seconds: float = 1.0) -> Good:
    """Return how a good client is served for some seconds while no other client calls."""
    async with good_browser(gateway) as good:
        await asyncio.sleep(seconds)
    assert good.failed == [], good
    return good
