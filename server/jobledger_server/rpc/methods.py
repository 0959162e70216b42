"""The methods of Jobledger's own services, each once, with all that calls need to know of it.

A method that is not in the table stops the server at its start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message


class Role(StrEnum):
    """What a caller does with jobs."""

    OWNER = "owner"
    """Creates, reads, updates, reruns, cancels and deletes the jobs of the users that it may act
    for."""

    WORKER = "worker"
    """Runs jobs of the types that it may work on."""

    OPERATOR = "operator"
    """Reads, updates, reruns, cancels and deletes the jobs of all users; counts, pauses and limits
    jobs."""


JOB_SERVICE = "/jobledger.v1.JobService/"
WORKER_SERVICE = "/jobledger.v1.WorkerService/"
QUEUE_SERVICE = "/jobledger.v1.QueueService/"
WEBHOOK_SERVICE = "/jobledger.v1.WebhookService/"
WEBHOOK_DELIVERY_SERVICE = "/jobledger.internal.v1alpha1.WebhookDeliveryService/"
"""The gateway's own."""
OPERATIONS = "/google.longrunning.Operations/"
"""google.longrunning's service. The owner is in its metadata."""
EXTERNAL_SCALER = "/externalscaler.ExternalScaler/"
"""KEDA's service."""


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        path: Its path, as gRPC names it.
        roles: Who may call it.
        reads: It changes nothing, so it can be refused once it has read its answer.
        lasts: A call may outlast a change of its caller's permissions.
        large: Its request contains a Struct, assets or output, and is an `UnparsedRequest`.
        all_users: It is for all users if its request names none.
        watches: The holder of a watch token may call it.
    """

    path: str
    roles: frozenset[Role]
    reads: bool = False
    lasts: bool = False
    large: bool = False
    all_users: bool = False
    watches: bool = False

    @cached_property
    def request(self) -> type[Message]:
        """The type of its requests, as the generated code of its service has it."""
        name = self.path[1:].replace("/", ".")
        method = descriptor_pool.Default().FindMethodByName(name)
        return message_factory.GetMessageClass(method.input_type)

    @property
    def for_users(self) -> bool:
        """Whether a call is for the user that it names."""
        return Role.OWNER in self.roles


_OWNER = frozenset({Role.OWNER})
_READER = frozenset({Role.OWNER, Role.OPERATOR})
_WORKER = frozenset({Role.WORKER})
_OPERATOR = frozenset({Role.OPERATOR})

METHODS: Mapping[str, Method] = {
    method.path: method
    for method in (
        Method(f"{JOB_SERVICE}CreateJob", _OWNER, large=True),
        Method(f"{JOB_SERVICE}BatchCreateJobs", _OWNER, large=True),
        Method(f"{JOB_SERVICE}SealGroup", _READER),
        Method(f"{JOB_SERVICE}GetJob", _READER, reads=True, watches=True),
        Method(f"{JOB_SERVICE}BatchGetJobs", _READER, reads=True),
        Method(f"{JOB_SERVICE}ListJobs", _READER, reads=True, all_users=True, watches=True),
        Method(f"{JOB_SERVICE}CancelJob", _READER),
        Method(f"{JOB_SERVICE}UpdateJob", _READER),
        Method(f"{JOB_SERVICE}DeleteJob", _READER),
        Method(f"{JOB_SERVICE}RerunJob", _READER),
        Method(f"{JOB_SERVICE}RerunJobs", _READER, all_users=True),
        Method(f"{JOB_SERVICE}CancelJobs", _READER, all_users=True),
        Method(f"{JOB_SERVICE}DeleteJobs", _READER, all_users=True),
        Method(f"{JOB_SERVICE}ListAssets", _READER, reads=True),
        Method(f"{JOB_SERVICE}ListTransitions", _READER, reads=True),
        Method(f"{JOB_SERVICE}ListAttempts", _READER, reads=True),
        Method(f"{JOB_SERVICE}WatchJob", _READER, lasts=True, watches=True),
        Method(f"{JOB_SERVICE}WatchJobs", _READER, lasts=True, all_users=True, watches=True),
        Method(f"{JOB_SERVICE}WatchOutput", _READER, lasts=True, watches=True),
        Method(f"{JOB_SERVICE}ReadOutput", _READER, reads=True, watches=True),
        Method(f"{JOB_SERVICE}CreateWatchToken", _OWNER),
        Method(f"{JOB_SERVICE}RevokeWatchTokens", _OPERATOR),
        Method(f"{OPERATIONS}GetOperation", _READER, reads=True),
        Method(f"{OPERATIONS}ListOperations", _READER, reads=True),
        Method(f"{OPERATIONS}CancelOperation", _READER),
        Method(f"{OPERATIONS}DeleteOperation", _READER),
        Method(f"{OPERATIONS}WaitOperation", _READER, reads=True, lasts=True),
        Method(f"{WORKER_SERVICE}ClaimJobs", _WORKER, lasts=True),
        Method(f"{WORKER_SERVICE}ReleaseJob", _WORKER),
        Method(f"{WORKER_SERVICE}TransitionJob", _WORKER, large=True),
        Method(f"{WORKER_SERVICE}UpdateProgress", _WORKER, large=True),
        Method(f"{WORKER_SERVICE}Work", _WORKER, lasts=True),
        Method(f"{WORKER_SERVICE}MarkCompleted", _WORKER, large=True),
        Method(f"{WORKER_SERVICE}MarkPartial", _WORKER, large=True),
        Method(f"{WORKER_SERVICE}MarkFailed", _WORKER, large=True),
        Method(f"{WORKER_SERVICE}CreateAsset", _WORKER),
        Method(f"{WORKER_SERVICE}AppendOutput", _WORKER, large=True),
        Method(f"{QUEUE_SERVICE}ListJobTypeStats", _OPERATOR, reads=True),
        Method(f"{QUEUE_SERVICE}ExplainJob", _READER, reads=True, all_users=True),
        Method(f"{QUEUE_SERVICE}PauseJobType", _OPERATOR),
        Method(f"{QUEUE_SERVICE}ResumeJobType", _OPERATOR),
        Method(f"{QUEUE_SERVICE}SetConcurrencyLimit", _OPERATOR),
        Method(f"{QUEUE_SERVICE}PauseConcurrencyKey", _OPERATOR),
        Method(f"{QUEUE_SERVICE}ResumeConcurrencyKey", _OPERATOR),
        Method(f"{QUEUE_SERVICE}ListConcurrencyLimits", _OPERATOR, reads=True),
        Method(f"{QUEUE_SERVICE}SetJobTypeDefaults", _OPERATOR),
        Method(f"{QUEUE_SERVICE}ListJobTypes", _OPERATOR, reads=True),
        Method(f"{WEBHOOK_SERVICE}CreateWebhook", _READER, all_users=True),
        Method(f"{WEBHOOK_SERVICE}GetWebhook", _READER, reads=True, all_users=True),
        Method(f"{WEBHOOK_SERVICE}UpdateWebhook", _READER, all_users=True),
        Method(f"{WEBHOOK_SERVICE}RotateSecret", _READER, all_users=True),
        Method(f"{WEBHOOK_SERVICE}ListWebhooks", _READER, reads=True, all_users=True),
        Method(f"{WEBHOOK_SERVICE}DeleteWebhook", _READER, all_users=True),
        Method(f"{WEBHOOK_SERVICE}EnableWebhook", _READER, all_users=True),
        # Deliverers read the jobs of all users, as operators do.
        Method(f"{WEBHOOK_DELIVERY_SERVICE}ClaimWebhooks", _OPERATOR),
        Method(f"{WEBHOOK_DELIVERY_SERVICE}SaveWebhook", _OPERATOR),
        Method(f"{EXTERNAL_SCALER}IsActive", _OPERATOR, reads=True),
        Method(f"{EXTERNAL_SCALER}StreamIsActive", _OPERATOR, lasts=True),
        Method(f"{EXTERNAL_SCALER}GetMetricSpec", _OPERATOR, reads=True),
        Method(f"{EXTERNAL_SCALER}GetMetrics", _OPERATOR, reads=True),
    )
}
"""By path."""


def methods_of(roles: frozenset[Role]) -> frozenset[str]:
    """Return the paths of the methods that these roles may call."""
    return frozenset(path for path, method in METHODS.items() if method.roles & roles)


def path_of(name: str) -> str | None:
    """Return the path of a method that is named as `JobService/GetJob`, or None."""
    found = [path for path in METHODS if path.endswith((f".{name}", f"/{name}"))]
    return found[0] if len(found) == 1 and "/" in name else None
