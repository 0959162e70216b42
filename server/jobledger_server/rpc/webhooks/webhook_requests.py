"""Converts requests of WebhookService. Raises InvalidRequest."""

from contextlib import suppress
from urllib.parse import urlsplit

from jobledger.v1 import webhook_service_pb2 as pb
from jobledger_server.domain.limits import (
    MAX_ID_CHARACTERS,
)
from jobledger_server.rpc import fields
from jobledger_server.rpc.validation import Checker
from jobledger_server.rpc.webhooks.receivers import violation
from jobledger_server.webhook_store import Webhook

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
