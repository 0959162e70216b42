"""WebhookService: subscriptions, for owners and operators."""

import base64
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from jobledger.v1 import webhook_service_pb2 as pb
from jobledger_server.domain.errors import WebhookNotFound
from jobledger_server.ledger.ids import IdSource
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.pages import Page, id_from
from jobledger_server.rpc.webhooks import webhook_requests
from jobledger_server.rpc.webhooks.changes import audit, in_turn
from jobledger_server.rpc.webhooks.webhook_messages import webhook_message
from jobledger_server.watch.feed_watch import Selection
from jobledger_server.webhook_store import Webhooks

SECRET_BYTES = 32

FeedHead = Callable[[Selection], str]
"""Returns the resume token of a WatchJobs with a selection after the latest change."""


@dataclass(frozen=True, slots=True)
class WebhookService:
    """Converts requests to changes of webhooks. Each takes its turn among the lists."""

    webhooks: Webhooks
    lists: Lists
    head: FeedHead
    ids: IdSource

    async def CreateWebhook(self, request: pb.CreateWebhookRequest, call: Call) -> bytes:
        webhook_id = self.ids.new_id(time.time_ns() // 1000)
        key = base64.b64encode(os.urandom(SECRET_BYTES)).decode()
        given = webhook_requests.create(request, webhook_id, f"whsec_{key}", call.caller.identity)
        selection = Selection(
            user_id=given.user_id or None,
            job_types=frozenset(given.job_types),
            labels=given.labels,
        )
        # The cursor is of now: what ends before the first claim is delivered too.
        webhook = replace(given, cursor=self.head(selection))
        created = await in_turn(self.lists, call, partial(self.webhooks.add, webhook))
        audit(call, "create_webhook", created.id)
        response = pb.CreateWebhookResponse(webhook=webhook_message(created), secret=created.secret)
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
        enabled = await in_turn(self.lists, call, enable)
        if enabled is None:
            raise WebhookNotFound(webhook_id)
        audit(call, "enable_webhook", webhook_id)
        return pb.EnableWebhookResponse(webhook=webhook_message(enabled)).SerializeToString()
