"""WebhookDeliveryService, for gateways: leases of webhooks, and how far each has come."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from google.protobuf.duration_pb2 import Duration

from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2 as pb
from jobledger_server.admission.caller import Permissions
from jobledger_server.domain.errors import WebhookNotHeld
from jobledger_server.domain.job import MICROS_PER_SECOND
from jobledger_server.domain.limits import MAX_CLAIMED_WEBHOOKS, WEBHOOK_LEASE_SECONDS
from jobledger_server.rpc.access.permissions import may_have_webhooks
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.webhooks import delivery_requests
from jobledger_server.rpc.webhooks.changes import audit, in_turn
from jobledger_server.rpc.webhooks.webhook_messages import claimed_message
from jobledger_server.webhook_store import Webhooks

PermissionsOf = Callable[[str, str], Permissions]
"""Returns what an identity may do now, by its name, where it acts for a user."""

NOT_PERMITTED = "the access file does not permit its creator to have it"


@dataclass(frozen=True, slots=True)
class WebhookDeliveryService:
    """Converts requests to claims and states. Each takes its turn among the lists."""

    webhooks: Webhooks
    lists: Lists
    permissions_of: PermissionsOf | None
    """None without an access file."""

    async def ClaimWebhooks(self, request: pb.ClaimWebhooksRequest, call: Call) -> bytes:
        deliverer_id, known = delivery_requests.claim(request)
        if request.stops:
            await in_turn(self.lists, call, partial(self.webhooks.leave, deliverer_id))
            return pb.ClaimWebhooksResponse().SerializeToString()
        claim = partial(
            self.webhooks.claim,
            deliverer_id,
            known,
            lease=WEBHOOK_LEASE_SECONDS * MICROS_PER_SECOND,
            limit=MAX_CLAIMED_WEBHOOKS,
        )
        await self._disable_of_others(call)
        claimed = await in_turn(self.lists, call, claim)
        response = pb.ClaimWebhooksResponse(
            webhooks=map(claimed_message, claimed.taken),
            held_ids=claimed.held,
            lease_duration=Duration(seconds=WEBHOOK_LEASE_SECONDS),
            surplus_ids=claimed.surplus,
        )
        return response.SerializeToString()

    async def SaveWebhook(self, request: pb.SaveWebhookRequest, call: Call) -> bytes:
        webhook_id, generation, deliveries = delivery_requests.save(request)
        save = partial(self.webhooks.save, webhook_id, generation, deliveries)
        if not await in_turn(self.lists, call, save):
            raise WebhookNotHeld(webhook_id)
        if deliveries.disable_reason:
            audit(call, "disable_webhook", webhook_id)
        return pb.SaveWebhookResponse().SerializeToString()

    async def _disable_of_others(self, call: Call) -> None:
        """Disable the webhooks whose creators may have them no more.

        Before each claim: so it holds too for what other servers have created, and for a file that
        changed while no server ran.
        """
        if self.permissions_of is None:
            return
        for creator, user_id in await in_turn(self.lists, call, self.webhooks.creators):
            if not may_have_webhooks(self.permissions_of(creator, user_id), user_id):
                disable = partial(
                    self.webhooks.disable, creator, user_id=user_id, reason=NOT_PERMITTED
                )
                for webhook_id in await in_turn(self.lists, call, disable):
                    audit(call, "disable_webhook", webhook_id)
