"""WebhookService: subscriptions for owners and operators, leases and states for deliverers."""

import base64
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from jobledger.v1 import webhook_service_pb2 as pb
from jobledger_server.admission.caller import Permissions
from jobledger_server.domain.errors import WebhookNotFound, WebhookNotHeld
from jobledger_server.domain.job import MICROS_PER_SECOND
from jobledger_server.domain.limits import MAX_CLAIMED_WEBHOOKS, WEBHOOK_LEASE_SECONDS
from jobledger_server.ledger.ids import IdSource
from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.rpc.access.permissions import may_have_webhooks
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.pages import Page, id_from
from jobledger_server.rpc.webhooks import webhook_requests
from jobledger_server.rpc.webhooks.webhook_messages import claimed_message, webhook_message
from jobledger_server.watch.feed_watch import Selection
from jobledger_server.webhook_store import Webhooks

Result = TypeVar("Result")

SECRET_BYTES = 32

log = logging.getLogger("jobledger.audit")

FeedHead = Callable[[Selection], str]
"""Returns the resume token of a WatchJobs with a selection after the latest change."""

PermissionsOf = Callable[[str, str], Permissions]
"""Returns what an identity may do now, by its name, where it acts for a user."""

NOT_PERMITTED = "the access file does not permit its creator to have it"


@dataclass(frozen=True, slots=True)
class WebhookService:
    """Converts requests to changes of webhooks. Each takes its turn among the lists."""

    webhooks: Webhooks
    lists: Lists
    head: FeedHead
    ids: IdSource
    permissions_of: PermissionsOf | None

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
        created = await self._in_turn(call, partial(self.webhooks.add, webhook))
        _audit(call, "create_webhook", created.id)
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
        if not await self._in_turn(call, remove):
            raise WebhookNotFound(webhook_id)
        _audit(call, "delete_webhook", webhook_id)
        return pb.DeleteWebhookResponse().SerializeToString()

    async def EnableWebhook(self, request: pb.EnableWebhookRequest, call: Call) -> bytes:
        webhook_id, user_id = webhook_requests.owned(request)
        creator = call.caller.identity
        enable = partial(self.webhooks.enable, webhook_id, user_id=user_id, creator=creator)
        enabled = await self._in_turn(call, enable)
        if enabled is None:
            raise WebhookNotFound(webhook_id)
        _audit(call, "enable_webhook", webhook_id)
        return pb.EnableWebhookResponse(webhook=webhook_message(enabled)).SerializeToString()

    async def ClaimWebhooks(self, request: pb.ClaimWebhooksRequest, call: Call) -> bytes:
        deliverer_id, known = webhook_requests.claim(request)
        if request.stops:
            await self._in_turn(call, partial(self.webhooks.leave, deliverer_id))
            return pb.ClaimWebhooksResponse().SerializeToString()
        claim = partial(
            self.webhooks.claim,
            deliverer_id,
            known,
            lease=WEBHOOK_LEASE_SECONDS * MICROS_PER_SECOND,
            limit=MAX_CLAIMED_WEBHOOKS,
        )
        await self._disable_of_others(call)
        claimed = await self._in_turn(call, claim)
        response = pb.ClaimWebhooksResponse(
            webhooks=map(claimed_message, claimed.taken),
            held_ids=claimed.held,
            lease_seconds=WEBHOOK_LEASE_SECONDS,
            surplus_ids=claimed.surplus,
        )
        return response.SerializeToString()

    async def SaveWebhook(self, request: pb.SaveWebhookRequest, call: Call) -> bytes:
        webhook_id, generation, deliveries = webhook_requests.save(request)
        save = partial(self.webhooks.save, webhook_id, generation, deliveries)
        if not await self._in_turn(call, save):
            raise WebhookNotHeld(webhook_id)
        if deliveries.disable_reason:
            _audit(call, "disable_webhook", webhook_id)
        return pb.SaveWebhookResponse().SerializeToString()

    async def _disable_of_others(self, call: Call) -> None:
        """Disable the webhooks whose creators may have them no more.

        Before each claim: so it holds too for what other servers have created, and for a file that
        changed while no server ran.
        """
        if self.permissions_of is None:
            return
        for creator, user_id in await self._in_turn(call, self.webhooks.creators):
            if not may_have_webhooks(self.permissions_of(creator, user_id), user_id):
                disable = partial(
                    self.webhooks.disable, creator, user_id=user_id, reason=NOT_PERMITTED
                )
                for webhook_id in await self._in_turn(call, disable):
                    _audit(call, "disable_webhook", webhook_id)

    async def _in_turn(self, call: Call, change: Callable[[], Awaitable[Result]]) -> Result:
        async with self.lists.turn(call.caller):
            return await retry_if_stale(change)


def _audit(call: Call, change: str, webhook_id: str) -> None:
    if call.caller.identity:
        facts = {"caller": call.caller.identity, "change": change, "webhook": webhook_id}
        log.info("change", extra={**facts, "outcome": "OK"})
