"""Holds webhooks, and delivers those that it holds. Any number of gateways share them.

Each holds its part. What it holds beyond that, because another gateway was started, it releases.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Final

import grpc

from jobledger.core.channel import CurrentCredentials
from jobledger.errors import JobledgerError
from jobledger.internal.v1alpha1.webhook_delivery_service_pb2 import (
    ClaimedWebhook,
    ClaimWebhooksRequest,
    ClaimWebhooksResponse,
)
from jobledger_gateway.settings import WebhookSettings
from jobledger_gateway.upstream import Upstream
from jobledger_gateway.webhooks.addresses import Resolver
from jobledger_gateway.webhooks.delivery import Delivery
from jobledger_gateway.webhooks.posting import Poster
from jobledger_gateway.webhooks.turns import Turns

RELEASE_SECONDS: Final = 3.0
"""How long it may take to store the states and end the claims."""

LEASE_MARGIN: Final = 0.8
"""The part of a lease after which a deliverer without news of it stops."""

log = logging.getLogger("jobledger.gateway.webhooks")


async def deliver(
    settings: WebhookSettings,
    target: str,
    credentials: CurrentCredentials | grpc.ChannelCredentials | None,
    timeout: float,  # noqa: ASYNC109
    *,
    tls_server_name: str | None = None,
) -> None:
    """Deliver the webhooks of a service until it is cancelled; then let others go on.

    What is under way then has a time to end.

    Args:
        settings: how.
        target: HOST:PORT of the service.
        credentials: for TLS to it; or a function that returns the current ones.
        timeout: seconds of one call to it.
        tls_server_name: the name in its servers' certificates, if `target` is not it.
    """
    upstream = Upstream(
        target,
        credentials=credentials,
        tls_server_name=tls_server_name,
        token=settings.token,
        timeout=timeout,
    )
    poster = Poster(Resolver(settings.networks), settings.timeout)
    deliverer = Deliverer(upstream, poster, settings)
    try:
        await deliverer.run()
    finally:
        try:
            # Before Python 3.11.3 a timeout in a cancelled task raises CancelledError.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.end):
                    await deliverer.end()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELEASE_SECONDS):
                    await deliverer.close()
        finally:
            await upstream.close()


class Deliverer:
    """Claims webhooks, and has a task for each.

    Args:
        upstream: calls the service.
        poster: posts.
        settings: how long it waits.
    """

    def __init__(self, upstream: Upstream, poster: Poster, settings: WebhookSettings) -> None:
        self._upstream = upstream
        self._poster = poster
        self._settings = settings
        self._owners = Turns(settings.at_once, settings.at_once_each)
        self._name = secrets.token_hex(16)
        self._held: dict[str, tuple[Delivery, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Hold a part of what nobody else holds, until it is cancelled."""
        held_until = time.monotonic()
        while True:
            asked = time.monotonic()
            full = False
            try:
                answer = await self._upstream.call(
                    "WebhookDeliveryService.ClaimWebhooks",
                    ClaimWebhooksRequest(deliverer_id=self._name, held_ids=self._running()),
                    (),
                )
            except JobledgerError as error:
                log.warning("webhook_claim_failed error=%s", error)
                if time.monotonic() >= held_until:
                    await self._drop(list(self._held))
            else:
                assert isinstance(answer, ClaimWebhooksResponse)  # noqa: S101
                held_until = asked + answer.lease_duration.seconds * LEASE_MARGIN
                lost = self._held.keys() - set(answer.held_ids)
                again = self._held.keys() & {each.webhook.id for each in answer.webhooks}
                await self._drop(lost | again)
                for claimed in answer.webhooks:
                    self._start(claimed)
                await self._release(await self._drop(answer.surplus_ids))
                full = bool(answer.webhooks)
            if not full:
                await asyncio.sleep(self._settings.poll)

    async def end(self) -> None:
        """Begin no attempt any more, and return once those under way have ended."""
        await asyncio.gather(*(delivery.end() for delivery, _ in self._held.values()))

    async def close(self) -> None:
        """Stop all deliveries, store their states and end the claims."""
        dropped = await self._drop(list(self._held))
        with contextlib.suppress(JobledgerError):  # the others then wait until its lease expires
            stop = ClaimWebhooksRequest(deliverer_id=self._name, stops=True)
            await self._upstream.call("WebhookDeliveryService.ClaimWebhooks", stop, ())
        await self._release(dropped)

    def _running(self) -> list[str]:
        return [webhook_id for webhook_id, (_, task) in self._held.items() if not task.done()]

    def _start(self, claimed: ClaimedWebhook) -> None:
        delivery = Delivery(
            claimed, self._upstream, self._poster, self._settings, owners=self._owners
        )
        task = asyncio.create_task(delivery.run(), name=f"webhook {claimed.webhook.id}")
        self._held[claimed.webhook.id] = delivery, task
        log.info("webhook_held webhook=%s", claimed.webhook.id)

    async def _drop(self, ids: Iterable[str]) -> Sequence[Delivery]:
        """Cancel the deliveries of these webhooks, and return them once they have ended."""
        dropped = [self._held.pop(webhook_id) for webhook_id in ids if webhook_id in self._held]
        for _, task in dropped:
            task.cancel()
        await asyncio.gather(*(task for _, task in dropped), return_exceptions=True)
        return [delivery for delivery, _ in dropped]

    async def _release(self, deliveries: Iterable[Delivery]) -> None:
        """Store the states of dropped deliveries, and end their claims."""
        async with asyncio.TaskGroup() as tasks:
            for delivery in deliveries:
                tasks.create_task(delivery.release())
