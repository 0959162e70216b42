"""Converts webhooks to messages."""

from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2 as internal
from jobledger.v1 import webhook_service_pb2 as pb
from jobledger_server.domain.job import JobStatus
from jobledger_server.rpc.messages import STATUSES, time_message
from jobledger_server.webhook_store import Webhook


def webhook_message(webhook: Webhook) -> pb.Webhook:
    """Make the message of a webhook, without its secret."""
    return pb.Webhook(
        id=webhook.id,
        user_id=webhook.user_id,
        url=webhook.url,
        job_types=webhook.job_types,
        labels=webhook.labels,
        transitions=[STATUSES[JobStatus(name)] for name in webhook.transitions],
        create_time=time_message(webhook.create_time),
        disable_time=time_message(webhook.disable_time),
        disable_reason=webhook.disable_reason,
        success_time=time_message(webhook.success_time),
        failure_time=time_message(webhook.failure_time),
        last_failure=webhook.last_failure,
        pending=webhook.pending_count,
        given_up=webhook.given_up,
        creator=webhook.creator,
        previous_secret_expire_time=time_message(webhook.previous_secret_expire_time),
    )


def claimed_message(webhook: Webhook) -> internal.ClaimedWebhook:
    """Make the message of a webhook for its deliverer."""
    # What is pending was serialized as this message.
    message = internal.ClaimedWebhook.FromString(webhook.pending)
    known = internal.ClaimedWebhook(
        webhook=webhook_message(webhook),
        secret=webhook.secret,
        generation=webhook.generation,
        cursor=webhook.cursor,
        enable_time=time_message(webhook.enable_time),
        previous_secret=webhook.previous_secret,
    )
    message.MergeFrom(known)
    return message
