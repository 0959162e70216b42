"""An owner with as many webhooks as it may have, and the receiver of all of them."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

from jobledger import AsyncClient
from jobledger.errors import LimitExceeded
from tests.robustness.abuse.attacker import begin, parent_waits
from tests.support.webhook_receiver import Receiver

ENDS_A_SECOND = 20
"""More of them would load the service, and not the gateway."""

FIRST = 3
"""Jobs whose deliveries have begun when the attack has."""


def webhooks(target: str) -> Mapping[str, int]:
    """Create webhooks until one is refused, and then end jobs that are posted to all of them."""
    return asyncio.run(_webhooks(target))


async def _webhooks(target: str) -> Mapping[str, int]:
    async with Receiver() as receiver, AsyncClient(target, user_id="eve") as client:
        count = ended = 0
        with suppress(LimitExceeded):
            while True:
                await client.create_webhook(receiver.url)
                count += 1

        async def end_jobs() -> None:
            nonlocal ended
            began = time.monotonic()
            while True:
                job = await client.create_job("t")
                await client.cancel_job(job.id)
                ended += 1
                await asyncio.sleep(max(0.0, began + ended / ENDS_A_SECOND - time.monotonic()))

        ending = asyncio.create_task(end_jobs())
        await receiver.until(lambda: len({each.job_id for each in receiver.succeeded}) >= FIRST)
        begin()
        before = len(receiver.succeeded)
        while parent_waits():
            await asyncio.sleep(0.05)
        ending.cancel()
        return {"webhooks": count, "ended": ended, "delivered": len(receiver.succeeded) - before}
