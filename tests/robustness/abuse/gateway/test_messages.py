"""Large messages of one client through a gateway: others are served all the same."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.gateway import message_attacks
from tests.robustness.abuse.good_client import Good
from tests.support.access_file import rule, write_access_file
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Http
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.slow]

PERIOD = 0.02
"""Seconds between the starts of two calls."""

MEASURED = 15
"""Seconds under attack. The first tenths, in which all of it arrives at once, are less than a
hundredth of that."""

JOBS = 5
"""Jobs with large parameters that are read."""


@pytest.fixture
def guarded_gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway for two owners."""
    access = tmp_path / "access.toml"
    owners = (rule(name, f'roles = ["owner"]\nusers = ["{name}"]') for name in ("eve", "good"))
    write_access_file(access, "".join(owners))
    with (
        ServerProcess(tmp_path, arguments=("--access", str(access))) as server,
        GatewayProcess(server.target, ["--no-access-log"]) as gateway,
    ):
        yield gateway


@asynccontextmanager
async def creating(port: int) -> AsyncIterator[Good]:
    """Create jobs of 6 KiB until the block ends, without waiting for the answers."""
    http, good = Http(port, "good"), Good()
    new = {"userId": "good", "jobType": "t", "parameters": {"text": "x" * 6 * 1024}}

    async def create() -> None:
        began = time.monotonic()
        answer = await http.post("/v1/jobs", new)
        good.seconds.append(time.monotonic() - began)
        good.creations.append(good.seconds[-1])
        if answer.status != 201:
            good.failed.append(str(answer.status))

    async def keep_creating() -> None:
        async with asyncio.TaskGroup() as calls:
            while not ended.is_set():
                calls.create_task(create())
                await asyncio.sleep(PERIOD)

    await create()
    ended = asyncio.Event()
    calling = asyncio.create_task(keep_creating())
    try:
        yield good
    finally:
        ended.set()
        await calling


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (message_attacks.bodies, {"most": False}),
        (message_attacks.bodies, {"most": True}),
        (message_attacks.answers, {}),
        (message_attacks.streams, {}),
    ],
    ids=["bodies", "permitted bodies", "answers", "event streams"],
)
async def test_large_messages_of_one_client_do_not_delay_another_ones_creation(
    guarded_gateway: GatewayProcess, function: Callable[..., object], options: dict[str, Any]
) -> None:
    port = int(guarded_gateway.url.rpartition(":")[2])
    eve = Http(port, "eve")
    new = {"userId": "eve", "jobType": "t", "parameters": message_attacks.MOST_VALUES}
    for _ in range(JOBS):
        assert (await eve.post("/v1/jobs", new)).status == 201
    async with creating(port) as alone:
        await asyncio.sleep(2)
    async with attack(function, f"127.0.0.1:{port}", token="eve", **options) as attacker:
        await attacker.begun()
        async with creating(port) as good:
            await asyncio.sleep(MEASURED)
        await attacker.report()
    good.assert_served(alone)
