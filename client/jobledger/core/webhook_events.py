"""The events of webhooks: CloudEvents as JSON, signed as Standard Webhooks says."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.json_format import MessageToDict

from jobledger.v1 import job_service_pb2
from jobledger.v1.job_pb2 import Job, JobStatus, JobTransition
from jobledger.webhooks import sign

SOURCE: Final = "/jobledger"
"""The `source` of all events. Their ids are unique by themselves."""

TYPE_PREFIX: Final = "dev.jobledger.job."

TERMINAL: Final = frozenset(
    {
        JobStatus.JOB_STATUS_COMPLETED,
        JobStatus.JOB_STATUS_PARTIAL,
        JobStatus.JOB_STATUS_FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """What one delivery is about; the same at each attempt.

    Attributes:
        id: the job and its version.
        body: the CloudEvent, serialized.
    """

    id: str
    body: bytes

    def headers(self, secrets: Sequence[str], now: float) -> dict[str, str]:
        """Return the headers of an attempt at this time, signed with each of these secrets."""
        from jobledger.version import __version__  # noqa: PLC0415  # its metadata is slow to find

        timestamp = int(now)
        return {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "user-agent": f"jobledger/{__version__}",
            "webhook-id": self.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(
                sign(secret, self.id, timestamp, self.body) for secret in secrets
            ),
        }


def event_of(job: Job, transition: JobTransition) -> Event:
    """Return the event of a transition, with its job as it is now, but for its request id."""
    data = MessageToDict(job)
    data.pop("requestId", None)  # whoever receives a webhook is not always its owner
    event_id = f"{transition.job_id}-{transition.version}"
    status = JobStatus.Name(transition.to_status).removeprefix("JOB_STATUS_").lower()
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": SOURCE,
        "type": f"{TYPE_PREFIX}{status}",
        "subject": transition.job_id,
        "time": transition.time.ToJsonString(),
        "datacontenttype": "application/json",
        "data": {"job": data, "transition": MessageToDict(transition)},
    }
    return Event(event_id, json.dumps(envelope, separators=(",", ":")).encode())


def delivered_transitions(
    change: job_service_pb2.JobChange, states: Collection[JobStatus.ValueType]
) -> Iterator[JobTransition]:
    """Yield the transitions of a change to these states, in order; to terminal ones if empty."""
    for transition in change.transitions:
        if transition.to_status in (states or TERMINAL):
            yield transition
