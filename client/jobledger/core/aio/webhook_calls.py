"""The calls about webhooks."""

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from google.protobuf.field_mask_pb2 import FieldMask

from jobledger.core.aio.pages import AsyncPagedCalls, AsyncPager
from jobledger.core.conversion import Seconds, build, to_duration
from jobledger.core.models import JobStatus
from jobledger.core.options import CallOptions
from jobledger.core.requests import fresh_id, status_numbers, texts
from jobledger.core.webhooks import NewWebhook, Webhook
from jobledger.v1.webhook_service_pb2 import (
    CreateWebhookRequest,
    DeleteWebhookRequest,
    EnableWebhookRequest,
    GetWebhookRequest,
    ListWebhooksRequest,
    RotateSecretRequest,
    UpdateWebhookRequest,
)


class AsyncWebhookCalls(AsyncPagedCalls):
    """For owners: webhooks of their jobs. For operators: those of all owners.

    The client's own user is the owner unless a call says otherwise.
    """

    async def create_webhook(
        self,
        url: str,
        *,
        job_types: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        transitions: JobStatus | Iterable[JobStatus] = (),
        user_id: str | None = None,
        all_users: bool = False,
        request_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> NewWebhook:
        """Have the ends of jobs posted to a URL, from now on; return the webhook and its secret.

        Args:
            url: where to post, `http` or `https`, at most 2048 characters, the host in ASCII.
            job_types: only jobs of these types, at most 100. Default: all.
            labels: only jobs with all of these labels. Default: all.
            transitions: the states whose transitions are posted: PROCESSING for the start of a job,
                COMPLETED, PARTIAL and FAILED for its end. Default: those three.
            user_id: the owner of the jobs. Default: that of the client.
            all_users: the jobs of all owners, without `user_id`; for operators.
            request_id: makes the call safe to repeat by yourself, as long as the webhook exists.
                Default: a new id for each call.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            RequestIdReused: the owner has used `request_id` with other content.
            LimitExceeded: there are too many webhooks.
            AccessDenied: the caller may not act for this owner.
        """
        request = build(
            CreateWebhookRequest,
            user_id=self._identity.owner_or_all(user_id, all_users=all_users),
            url=url,
            job_types=texts(job_types, "job_types"),
            labels=dict(labels or {}),
            transitions=status_numbers(transitions),
            request_id=request_id or fresh_id(),
        )
        answer = await self._call(lambda service: service.webhooks.CreateWebhook, request, options)
        return NewWebhook(webhook=Webhook.from_proto(answer.webhook), secret=answer.secret)

    async def get_webhook(
        self,
        webhook_id: str,
        *,
        user_id: str | None = None,
        all_users: bool = False,
        **options: Unpack[CallOptions],
    ) -> Webhook:
        """Return a webhook, without its secret.

        Args:
            webhook_id: the webhook.
            user_id: its owner. Default: that of the client.
            all_users: whoever owns it, without `user_id`; for operators.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            WebhookNotFound: this user has no such webhook.
            AccessDenied: the caller may not act for this owner.
        """
        owner = self._identity.owner_or_all(user_id, all_users=all_users)
        request = build(GetWebhookRequest, webhook_id=webhook_id, user_id=owner)
        answer = await self._call(lambda service: service.webhooks.GetWebhook, request, options)
        return Webhook.from_proto(answer.webhook)

    async def update_webhook(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        job_types: Iterable[str] | None = None,
        labels: Mapping[str, str] | None = None,
        transitions: JobStatus | Iterable[JobStatus] | None = None,
        user_id: str | None = None,
        all_users: bool = False,
        **options: Unpack[CallOptions],
    ) -> Webhook:
        """Change where a webhook posts to, or which transitions; return it. It loses none.

        What is None stays as it is. The caller is its creator from then on.

        Args:
            webhook_id: the webhook.
            url: where to post, as in `create_webhook`.
            job_types: only jobs of these types, at most 100; empty for all.
            labels: only jobs with all of these labels; empty for all.
            transitions: as in `create_webhook`; empty for ends.
            user_id: its owner. Default: that of the client.
            all_users: whoever owns it, without `user_id`; for operators.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule, or nothing is to be changed.
            WebhookNotFound: this user has no such webhook.
            AccessDenied: the caller may not act for this owner.
        """
        changes: dict[str, Any] = {
            "url": url,
            "job_types": None if job_types is None else texts(job_types, "job_types"),
            "labels": None if labels is None else dict(labels),
            "transitions": None if transitions is None else status_numbers(transitions),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        request = build(
            UpdateWebhookRequest,
            webhook_id=webhook_id,
            user_id=self._identity.owner_or_all(user_id, all_users=all_users),
            update_mask=FieldMask(paths=given),
            **given,
        )
        answer = await self._call(lambda service: service.webhooks.UpdateWebhook, request, options)
        return Webhook.from_proto(answer.webhook)

    async def rotate_webhook_secret(
        self,
        webhook_id: str,
        *,
        keep_previous: Seconds | None = None,
        user_id: str | None = None,
        all_users: bool = False,
        request_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> NewWebhook:
        """Give a webhook a new secret; return both.

        For a while its deliveries are signed with the secret until now, too, so that the receiver
        may verify by either.

        Args:
            webhook_id: the webhook.
            keep_previous: how long, in seconds or as a timedelta, at most 7 days. 0 if others know
                the secret. Default: a day.
            user_id: its owner. Default: that of the client.
            all_users: whoever owns it, without `user_id`; for operators.
            request_id: makes the call safe to repeat by yourself. Default: a new id for each call.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            RequestIdReused: `request_id` is that of an earlier rotation than the last one.
            WebhookNotFound: this user has no such webhook.
            AccessDenied: the caller may not act for this owner.
        """
        request = build(
            RotateSecretRequest,
            webhook_id=webhook_id,
            user_id=self._identity.owner_or_all(user_id, all_users=all_users),
            keep_previous=to_duration(keep_previous, "keep_previous"),
            request_id=request_id or fresh_id(),
        )
        answer = await self._call(lambda service: service.webhooks.RotateSecret, request, options)
        return NewWebhook(webhook=Webhook.from_proto(answer.webhook), secret=answer.secret)

    def list_webhooks(
        self,
        *,
        user_id: str | None = None,
        all_users: bool = False,
        page_size: int = 0,
        page_token: str = "",
        **options: Unpack[CallOptions],
    ) -> AsyncPager[Webhook]:
        """List webhooks, oldest first. Iterate over the result, or over its `pages()`.

        Args:
            user_id: the owner of the jobs. Default: that of the client.
            all_users: all webhooks, without `user_id`; for operators.
            page_size: webhooks read with one call, at most 1000; 0 leaves it to the server.
            page_token: the `next_page_token` of a page of the same list, to go on after it.
            **options: see CallOptions; for each page.

        Raises:
            InvalidField: a field breaks its rule.
            InvalidToken: `page_token` is of another list.
            AccessDenied: the caller may not act for this owner.
        """
        request = build(
            ListWebhooksRequest,
            user_id=self._identity.owner_or_all(user_id, all_users=all_users),
            page_size=page_size,
        )
        return self._pages(
            lambda service: service.webhooks.ListWebhooks,
            request,
            lambda answer: map(Webhook.from_proto, answer.webhooks),
            page_token,
            options,
        )

    async def delete_webhook(
        self,
        webhook_id: str,
        *,
        user_id: str | None = None,
        all_users: bool = False,
        **options: Unpack[CallOptions],
    ) -> None:
        """Delete a webhook. A delivery that is under way may still arrive.

        Args:
            webhook_id: the webhook.
            user_id: its owner. Default: that of the client.
            all_users: whoever owns it, without `user_id`; for operators.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            WebhookNotFound: this user has no such webhook.
            AccessDenied: the caller may not act for this owner.
        """
        owner = self._identity.owner_or_all(user_id, all_users=all_users)
        request = build(DeleteWebhookRequest, webhook_id=webhook_id, user_id=owner)
        await self._call(lambda service: service.webhooks.DeleteWebhook, request, options)

    async def enable_webhook(
        self,
        webhook_id: str,
        *,
        user_id: str | None = None,
        all_users: bool = False,
        **options: Unpack[CallOptions],
    ) -> Webhook:
        """Let a disabled webhook deliver again, from where it stopped; return it.

        The caller is its creator from then on: with an access file a webhook is disabled when its
        creator may have it no more.

        Args:
            webhook_id: the webhook.
            user_id: its owner. Default: that of the client.
            all_users: whoever owns it, without `user_id`; for operators.
            **options: see CallOptions.

        Raises:
            InvalidField: a field breaks its rule.
            WebhookNotFound: this user has no such webhook.
            AccessDenied: the caller may not act for this owner.
        """
        owner = self._identity.owner_or_all(user_id, all_users=all_users)
        request = build(EnableWebhookRequest, webhook_id=webhook_id, user_id=owner)
        answer = await self._call(lambda service: service.webhooks.EnableWebhook, request, options)
        return Webhook.from_proto(answer.webhook)
