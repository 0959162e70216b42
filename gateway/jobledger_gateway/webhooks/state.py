"""What is known of a webhook's deliveries, and how it is stored with the service.

What is stored is a resume token, what before it was not delivered yet, and how it goes. Whatever
ends this process, the next one repeats at most.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.core.retry import wait_at_most
from jobledger.errors import JobledgerError, WebhookNotHeld
from jobledger.internal.v1alpha1.webhook_delivery_service_pb2 import (
    ClaimedWebhook,
    PendingDelivery,
    SaveWebhookRequest,
)
from jobledger_gateway.metrics import FIGURES
from jobledger_gateway.upstream import Upstream
from jobledger_gateway.webhooks.pending import Pending

QUIET_SAVE_SECONDS: Final = 30.0
"""Between two times that a token is stored if nothing was to be delivered."""

MAX_REASON: Final = 500

log = logging.getLogger("jobledger.gateway.webhooks")


class State:
    """The state of one webhook, from what its last deliverer stored.

    Args:
        claimed: the webhook, its secret and its state.
        upstream: calls the service.
        save_seconds: how long it waits before it stores what has changed.

    Attributes:
        pending: what was not delivered yet.
        last_success: when a delivery last succeeded, in seconds since the Unix epoch.
    """

    def __init__(self, claimed: ClaimedWebhook, upstream: Upstream, save_seconds: float) -> None:
        self.pending = Pending(_begun_anew(claimed))
        self.last_success = seconds_of(claimed.webhook.success_time)
        self._upstream = upstream
        self._save_seconds = save_seconds
        self._failing = ""  # why, since the last success
        self._request = SaveWebhookRequest(
            webhook_id=claimed.webhook.id,
            generation=claimed.generation,
            cursor=claimed.cursor,
            given_up=claimed.webhook.given_up,
        )
        self._changed = False  # what is stored is not the state any more
        self._soon = asyncio.Event()  # and it is worth a call

    @property
    def cursor(self) -> str:
        """The resume token up to which all is delivered or pending."""
        return self._request.cursor

    def move_to(self, cursor: str) -> None:
        """Take note that all is delivered, or pending, up to this resume token."""
        if cursor not in ("", self._request.cursor):
            self._request.cursor = cursor
            self._changed = True

    def succeeded(self) -> None:
        """Take note of a delivery, and have it stored."""
        if self._failing:
            log.info("webhook_recovered webhook=%s", self._request.webhook_id)
            self._failing = ""
        self.last_success = time.time()
        self._request.success_time.CopyFrom(timestamp(self.last_success))
        self.save_soon()

    def failed(self, failure: str) -> None:
        """Take note of a failure, and have it stored; log it unless the last one was the same."""
        if failure != self._failing:
            log.warning("webhook_fails webhook=%s failure=%r", self._request.webhook_id, failure)
            self._failing = failure
        self._request.failure_time.CopyFrom(timestamp(time.time()))
        self._request.last_failure = failure[:MAX_REASON]
        self.save_soon()

    def gave_up(self) -> None:
        """Take note of a delivery that is not tried again."""
        FIGURES.deliveries["given_up"] += 1
        self._request.given_up += 1

    def save_soon(self) -> None:
        """Have `keep_saving` store the state, which has changed."""
        self._changed = True
        self._soon.set()

    def delivered_some(self) -> None:
        """Have `keep_saving` store the state soon if it has changed."""
        self._soon.set()

    async def keep_saving(self) -> None:
        """Store the state now and then, until it is cancelled. Raises WebhookNotHeld."""
        while True:
            await wait_at_most(QUIET_SAVE_SECONDS, self._soon)
            self._soon.clear()
            await asyncio.sleep(self._save_seconds)
            if self._changed:
                await self._try_to_save()

    async def disable(self, reason: str) -> None:
        """Store that the webhook is disabled."""
        FIGURES.disabled += 1
        log.warning("webhook_disabled webhook=%s reason=%r", self._request.webhook_id, reason)
        self._request.disable_reason = reason[:MAX_REASON]
        self._changed = True
        with contextlib.suppress(WebhookNotHeld):
            while self._changed:
                await self._try_to_save()
                await asyncio.sleep(self._save_seconds)

    async def release(self) -> None:
        """Store the state and let another deliverer go on."""
        self._request.release = True
        with contextlib.suppress(JobledgerError):
            await self._save()

    async def _try_to_save(self) -> None:
        """Store the state, or leave it to the next time. Raises WebhookNotHeld."""
        try:
            await self._save()
        except WebhookNotHeld:
            raise
        except JobledgerError as error:
            log.warning("webhook_save_failed webhook=%s error=%s", self._request.webhook_id, error)

    async def _save(self) -> None:
        """Store the state. Raises JobledgerError; WebhookNotHeld ends the delivery."""
        request = SaveWebhookRequest()
        request.CopyFrom(self._request)
        request.pending.extend(self.pending)
        self._changed = False
        try:
            await self._upstream.call("WebhookDeliveryService.SaveWebhook", request, ())
        except JobledgerError:
            self._changed = True
            raise


def _begun_anew(claimed: ClaimedWebhook) -> Iterator[PendingDelivery]:
    """Yield what is pending; what was first tried before the webhook was enabled begins anew."""
    for delivery in claimed.pending:
        if seconds_of(delivery.first_time) < seconds_of(claimed.enable_time):
            delivery.attempts = 0
            delivery.next_time.CopyFrom(timestamp(time.time()))
        yield delivery


def timestamp(seconds: float) -> Timestamp:
    """Return a time since the Unix epoch as a message."""
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1_000_000))
    return stamp


def seconds_of(stamp: Timestamp) -> float:
    """Return a message's time in seconds since the Unix epoch."""
    return stamp.ToMicroseconds() / 1_000_000
