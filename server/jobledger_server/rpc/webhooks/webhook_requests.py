"""Converts requests of WebhookService. Raises InvalidRequest."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from jobledger.v1 import webhook_service_pb2 as pb
from jobledger_server.domain.job import MICROS_PER_SECOND, JobStatus, Micros
from jobledger_server.domain.limits import (
    DEFAULT_KEEP_SECRET_SECONDS,
    MAX_ID_CHARACTERS,
    MAX_KEEP_SECRET_SECONDS,
)
from jobledger_server.rpc import fields
from jobledger_server.rpc.validation import Checker
from jobledger_server.rpc.webhooks.receivers import violation
from jobledger_server.webhook_store import Webhook

SCHEMES = frozenset({"http", "https"})

Owned = (
    pb.DeleteWebhookRequest
    | pb.EnableWebhookRequest
    | pb.GetWebhookRequest
    | pb.RotateSecretRequest
    | pb.UpdateWebhookRequest
)


def create(request: pb.CreateWebhookRequest, webhook_id: str, secret: str, creator: str) -> Webhook:
    """Return the webhook, without its cursor."""
    with Checker() as check:
        return Webhook(
            id=webhook_id,
            user_id=fields.user_id(check, request.user_id, required=False),
            url=_url(check, request.url),
            job_types=sorted(fields.job_types(check, request.job_types)),
            labels=check.labels("labels", request.labels),
            transitions=_transitions(check, request.transitions),
            secret=secret,
            cursor="",
            creator=creator,
            request_id=fields.request_id(check, request.request_id),
        )


def _url(check: Checker, url: str) -> str:
    check.url("url", url, SCHEMES)
    if "#" in url:
        check.add("url", "must not have a fragment")
    with suppress(ValueError):  # it is no URL, and that was said
        if why := violation(urlsplit(url)):
            check.add("url", why)
    return url


def _transitions(check: Checker, values: Sequence[int]) -> list[str]:
    """Return the names of the states, each once, in the order of a job's life."""
    found = fields.statuses(check, "transitions", values)
    if JobStatus.QUEUED in found:
        check.add("transitions", "has QUEUED, to which no job is moved")
    return [status.value for status in JobStatus if status in found]


def listed(request: pb.ListWebhooksRequest) -> str:
    """Return the owner; empty for all."""
    with Checker() as check:
        check.at_least_zero("page_size", request.page_size)
        return fields.user_id(check, request.user_id, required=False)


def update(request: pb.UpdateWebhookRequest) -> dict[str, Any]:
    """Return what is changed, by the name of the field."""
    paths = request.update_mask.paths
    with Checker() as check:
        if not paths:
            check.add("update_mask", "is required")
        changes: dict[str, Any] = {}
        for path in paths:
            match path:
                case "url":
                    changes[path] = _url(check, request.url)
                case "job_types":
                    changes[path] = sorted(fields.job_types(check, request.job_types))
                case "labels":
                    changes[path] = check.labels("labels", request.labels)
                case "transitions":
                    changes[path] = _transitions(check, request.transitions)
                case _:
                    check.add("update_mask", f"has {path!r}, which cannot be changed")
    return changes


def rotation(request: pb.RotateSecretRequest) -> tuple[str, Micros]:
    """Return the request id, and how long the secret until now is signed with."""
    with Checker() as check:
        request_id = fields.request_id(check, request.request_id)
        if not request.HasField("keep_previous"):
            return request_id, Micros(DEFAULT_KEEP_SECRET_SECONDS * MICROS_PER_SECOND)
        keep = check.duration("keep_previous", request.keep_previous, 0, MAX_KEEP_SECRET_SECONDS)
        return request_id, keep


def owned(request: Owned) -> tuple[str, str]:
    """Return the webhook's id, and the owner that it must have; empty for any."""
    with Checker() as check:
        webhook_id = check.name("webhook_id", request.webhook_id, MAX_ID_CHARACTERS)
        return webhook_id, fields.user_id(check, request.user_id, required=False)
