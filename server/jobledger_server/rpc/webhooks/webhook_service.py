"""WebhookService: subscriptions, for owners and operators."""

import base64
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from jobledger.v1 import webhook_service_pb2 as pb
from jobledger_server.domain.errors import RequestIdReused, WebhookNotFound
from jobledger_server.domain.job import Instant
from jobledger_server.ledger.ids import IdSource
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.pages import Page, id_from
from jobledger_server.rpc.webhooks import webhook_requests
from jobledger_server.rpc.webhooks.changes import audit, in_turn
from jobledger_server.rpc.webhooks.webhook_messages import webhook_message
from jobledger_server.watch.feed_watch import Selection
from jobledger_server.webhook_store import Webhook, Webhooks

SECRET_BYTES = 32

FeedHead = Callable[[Selection], str]
"""Returns the resume token of a WatchJobs with a selection after the latest change."""

MovedToken = Callable[[str, Selection, Selection], str]
"""Returns a resume token of one selection as that of another."""

CONTENT = ("url", "job_types", "labels", "transitions")
"""What its owner decides of a webhook."""


@dataclass(frozen=True, slots=True)
class WebhookService:
    """Converts requests to changes of webhooks. Each takes its turn among the lists."""

    webhooks: Webhooks
    lists: Lists
    head: FeedHead
    moved: MovedToken
    ids: IdSource
    each: int
    """Webhooks that one owner may have."""

    async def CreateWebhook(self, request: pb.CreateWebhookRequest, call: Call) -> bytes:
        webhook_id = self.ids.new_id(time.time_ns() // 1000)
        given = webhook_requests.create(request, webhook_id, _new_secret(), call.caller.identity)
        # The cursor is of now: what ends before the first claim is delivered too.
        webhook = replace(given, cursor=self.head(_selection(given)))
        created = await in_turn(
            self.lists, call, partial(self.webhooks.add, webhook, each=self.each)
        )
        if created.id == webhook_id:
            audit(call, "create_webhook", created.id)
        elif any(getattr(created, name) != getattr(webhook, name) for name in CONTENT):
            raise RequestIdReused(webhook.request_id, "Webhook", created.id)
        response = pb.CreateWebhookResponse(webhook=webhook_message(created), secret=created.secret)
        return response.SerializeToString()

    async def GetWebhook(self, request: pb.GetWebhookRequest, call: Call) -> bytes:
        webhook_id, user_id = webhook_requests.owned(request)
        get = partial(self.webhooks.get, webhook_id, user_id=user_id)
        webhook = _found(webhook_id, await in_turn(self.lists, call, get))
        return pb.GetWebhookResponse(webhook=webhook_message(webhook)).SerializeToString()

    async def UpdateWebhook(self, request: pb.UpdateWebhookRequest, call: Call) -> bytes:
        webhook_id, user_id = webhook_requests.owned(request)
        values = webhook_requests.update(request)

        def change(webhook: Webhook, _: Instant) -> Webhook:
            changed = replace(webhook, **values, creator=call.caller.identity)
            before, after = _selection(webhook), _selection(changed)
            return replace(changed, cursor=self.moved(webhook.cursor, before, after))

        update = partial(self.webhooks.update, webhook_id, user_id=user_id, change=change)
        updated = _found(webhook_id, await in_turn(self.lists, call, update))
        audit(call, "update_webhook", webhook_id)
        return pb.UpdateWebhookResponse(webhook=webhook_message(updated)).SerializeToString()

    async def RotateSecret(self, request: pb.RotateSecretRequest, call: Call) -> bytes:
        webhook_id, user_id = webhook_requests.owned(request)
        request_id, keep = webhook_requests.rotation(request)
        secret = _new_secret()

        def change(webhook: Webhook, now: Instant) -> Webhook:
            return webhook.rotated(secret, request_id=request_id, keep=keep, now=now)

        rotate = partial(self.webhooks.update, webhook_id, user_id=user_id, change=change)
        rotated = _found(webhook_id, await in_turn(self.lists, call, rotate))
        audit(call, "rotate_webhook_secret", webhook_id)
        response = pb.RotateSecretResponse(webhook=webhook_message(rotated), secret=rotated.secret)
        return response.SerializeToString()

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, call: Call) -> bytes:
        user_id = webhook_requests.listed(request)
        page = Page(request, ("webhooks", user_id))
        after = id_from(page.after)
        async with self.lists.turn(call.caller):
            rows = await self.webhooks.listed(user_id=user_id, after=after, limit=page.limit + 1)
            listed, token = await page.messages(rows, webhook_message, cursor=lambda row: row.id)
        return pb.ListWebhooksResponse(webhooks=listed, next_page_token=token).SerializeToString()

    async def DeleteWebhook(self, request: pb.DeleteWebhookRequest, call: Call) -> bytes:
        webhook_id, user_id = webhook_requests.owned(request)
        remove = partial(self.webhooks.remove, webhook_id, user_id=user_id)
        if not await in_turn(self.lists, call, remove):
            raise WebhookNotFound(webhook_id)
        audit(call, "delete_webhook", webhook_id)
        return pb.DeleteWebhookResponse().SerializeToString()

    async def EnableWebhook(self, request: pb.EnableWebhookRequest, call: Call) -> bytes:
        webhook_id, user_id = webhook_requests.owned(request)
        creator = call.caller.identity
        enable = partial(self.webhooks.enable, webhook_id, user_id=user_id, creator=creator)
        enabled = _found(webhook_id, await in_turn(self.lists, call, enable))
        audit(call, "enable_webhook", webhook_id)
        return pb.EnableWebhookResponse(webhook=webhook_message(enabled)).SerializeToString()


def _found(webhook_id: str, webhook: Webhook | None) -> Webhook:
    if webhook is None:
        raise WebhookNotFound(webhook_id)
    return webhook


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(os.urandom(SECRET_BYTES)).decode()}"


def _selection(webhook: Webhook) -> Selection:
    """Return the selection of the WatchJobs that the webhook's cursor is of."""
    return Selection(
        user_id=webhook.user_id or None,
        job_types=frozenset(webhook.job_types),
        labels=webhook.labels,
    )
