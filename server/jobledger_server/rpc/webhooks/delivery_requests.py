"""Converts requests of WebhookDeliveryService. Raises InvalidRequest."""

from collections.abc import Sequence

from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2 as pb
from jobledger_server.domain.limits import (
    MAX_ID_CHARACTERS,
    MAX_MESSAGE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_PENDING_BYTES,
    MAX_PENDING_DELIVERIES,
    MAX_RESUME_TOKEN_CHARACTERS,
    MAX_WEBHOOKS,
)
from jobledger_server.rpc import fields
from jobledger_server.rpc.validation import Checker
from jobledger_server.webhook_store import Deliveries


def claim(request: pb.ClaimWebhooksRequest) -> tuple[str, Sequence[str]]:
    """Return the id of the deliverer, and those of the webhooks that it knows to hold."""
    with Checker() as check:
        deliverer_id = check.name("deliverer_id", request.deliverer_id, MAX_NAME_CHARACTERS)
        check.at_most("held_ids", request.held_ids, MAX_WEBHOOKS)
    return deliverer_id, tuple(dict.fromkeys(request.held_ids))


def save(request: pb.SaveWebhookRequest) -> tuple[str, int, Deliveries]:
    """Return the webhook's id, the claim's generation, and what is to be stored."""
    with Checker() as check:
        # As it is stored; see webhook_messages.claimed_message.
        pending = pb.ClaimedWebhook(pending=request.pending).SerializeToString()
        if check.at_most("pending", request.pending, MAX_PENDING_DELIVERIES):
            check.number("pending", len(pending), 0, MAX_PENDING_BYTES)
            for index, delivery in enumerate(request.pending):
                _check_pending(check.within(f"pending[{index}]."), delivery)
        webhook_id = check.name("webhook_id", request.webhook_id, MAX_ID_CHARACTERS)
        deliveries = Deliveries(
            cursor=check.name(
                "cursor", request.cursor, MAX_RESUME_TOKEN_CHARACTERS, required=False
            ),
            pending=pending,
            pending_count=len(request.pending),
            success_time=fields.optional_time(check, request, "success_time"),
            failure_time=fields.optional_time(check, request, "failure_time"),
            last_failure=check.text("last_failure", request.last_failure, MAX_MESSAGE_CHARACTERS),
            given_up=check.at_least_zero("given_up", request.given_up),
            disable_reason=check.text(
                "disable_reason", request.disable_reason, MAX_MESSAGE_CHARACTERS
            ),
            release=request.release,
        )
    return webhook_id, request.generation, deliveries


def _check_pending(check: Checker, delivery: pb.PendingDelivery) -> None:
    fields.job_id(check.within("transition."), delivery.transition.job_id)
    fields.user_id(check, delivery.user_id)
    check.job_type("job_type", delivery.job_type)
    check.at_least_zero("attempts", delivery.attempts)
    check.timestamp("first_time", delivery.first_time)
    check.timestamp("next_time", delivery.next_time)
