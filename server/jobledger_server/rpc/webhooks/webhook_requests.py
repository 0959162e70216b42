"""Converts requests of WebhookService. Raises InvalidRequest."""

from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from jobledger.v1 import webhook_service_pb2 as pb
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
from jobledger_server.rpc.webhooks.receivers import violation
from jobledger_server.webhook_store import Deliveries, Webhook

SCHEMES = frozenset({"http", "https"})


def create(request: pb.CreateWebhookRequest, webhook_id: str, secret: str, creator: str) -> Webhook:
    """Return the webhook, without its cursor."""
    with Checker() as check:
        return Webhook(
            id=webhook_id,
            user_id=fields.user_id(check, request.user_id, required=False),
            url=_url(check, request.url),
            job_types=sorted(fields.job_types(check, request.job_types)),
            labels=check.labels("labels", request.labels),
            all_transitions=request.all_transitions,
            secret=secret,
            cursor="",
            creator=creator,
        )


def _url(check: Checker, url: str) -> str:
    check.url("url", url, SCHEMES)
    if "#" in url:
        check.add("url", "must not have a fragment")
    with suppress(ValueError):  # it is no URL, and that was said
        if why := violation(urlsplit(url)):
            check.add("url", why)
    return url


def listed(request: pb.ListWebhooksRequest) -> str:
    """Return the owner; empty for all."""
    with Checker() as check:
        check.at_least_zero("page_size", request.page_size)
        return fields.user_id(check, request.user_id, required=False)


def owned(request: pb.DeleteWebhookRequest | pb.EnableWebhookRequest) -> tuple[str, str]:
    """Return the webhook's id, and the owner that it must have; empty for any."""
    with Checker() as check:
        webhook_id = check.name("webhook_id", request.webhook_id, MAX_ID_CHARACTERS)
        return webhook_id, fields.user_id(check, request.user_id, required=False)


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
