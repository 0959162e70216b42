"""Bugs of webhooks: who delivers each, and what their owners ask for."""

from tests.simulation.planted.bug import Bug

DELIVERY = "rpc.webhooks.delivery_service"
SERVICE = "rpc.webhooks.webhook_service"

BUGS = {
    "ended claim acknowledged": Bug(
        "a deliverer whose claim of a webhook has ended is told that its state is stored",
        DELIVERY,
        "            raise WebhookNotHeld(webhook_id)\n",
        "            pass\n",
    ),
    "rotation repeated": Bug(
        "a rotation that is repeated with its request id makes another secret",
        "webhook_store",
        "if request_id and request_id in self.rotation_ids:",
        "if False:",
    ),
    "earlier rotation repeated": Bug(
        "a late repetition of an earlier rotation makes another secret",
        "webhook_store",
        "if request_id and request_id in self.rotation_ids:",
        "if request_id and request_id in self.rotation_ids[-1:]:",
    ),
    "update of a webhook forgotten": Bug(
        "a webhook that was updated posts to its old URL",
        SERVICE,
        "changed = replace(webhook, **values, creator=call.caller.identity)",
        "changed = replace(webhook, **{**values, 'url': webhook.url},"
        " creator=call.caller.identity)",
    ),
}
