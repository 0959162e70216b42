"""Converts webhooks to messages."""

from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.v1 import webhook_service_pb2 as pb
from jobledger_server.domain.job import Instant
from jobledger_server.webhook_store import Webhook


def webhook_message(webhook: Webhook) -> pb.Webhook:
    """Make the message of a webhook, without its secret."""
    return pb.Webhook(
        id=webhook.id,
        user_id=webhook.user_id,
        url=webhook.url,
        job_types=webhook.job_types,
        labels=webhook.labels,
        all_transitions=webhook.all_transitions,
        create_time=_time(webhook.create_time),
        disable_time=_time(webhook.disable_time),
        disable_reason=webhook.disable_reason,
        success_time=_time(webhook.success_time),
        failure_time=_time(webhook.failure_time),
        last_failure=webhook.last_failure,
        pending=webhook.pending_count,
        given_up=webhook.given_up,
    )


def claimed_message(webhook: Webhook) -> pb.ClaimedWebhook:
    """Make the message of a webhook for its deliverer."""
    # What is pending was serialized as this message.
    message = pb.ClaimedWebhook.FromString(webhook.pending)
    message.webhook.CopyFrom(webhook_message(webhook))
    message.secret = webhook.secret
    message.generation = webhook.generation
    message.cursor = webhook.cursor
    return message


def _time(instant: Instant | None) -> Timestamp | None:
    if instant is None:
        return None
    time = Timestamp()
    time.FromMicroseconds(instant)
    return time
