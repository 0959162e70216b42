"""Callers of an access file, and what each of them may call."""

import hashlib
from collections.abc import Iterator

from google.longrunning import operations_pb2
from google.protobuf.descriptor import MethodDescriptor

from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2
from jobledger.v1 import (
    job_service_pb2,
    queue_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)
from jobledger_server.rpc.keda import externalscaler_pb2
from tests.support.access_file import rule

ALL_USERS = {"ListJobs", "RerunJobs", "CancelJobs", "DeleteJobs", "ExplainJob"}
READS = {
    *(
        "GetJob",
        "BatchGetJobs",
        "SealGroup",
        "CancelJob",
        "UpdateJob",
        "DeleteJob",
        "RerunJob",
        *ALL_USERS,
    ),
    *("ListAssets", "ListTransitions", "ListAttempts", "ReadOutput"),
}
WATCHES = {"WatchJob", "WatchJobs", "WatchOutput"}
OPERATIONS = {f"{verb}Operation" for verb in ("Get", "Cancel", "Delete", "Wait")}
WEBHOOKS = {f"{verb}Webhook" for verb in ("Create", "Get", "Update", "Delete", "Enable")} | {
    "ListWebhooks",
    "RotateSecret",
}
CREATES = {"CreateJob", "BatchCreateJobs", "CreateWatchToken"}
OWNERS = {*CREATES, *READS, *WATCHES, *OPERATIONS, "ListOperations", *WEBHOOKS}
OPERATORS = OWNERS - CREATES
WORKERS = {
    *("ClaimJobs", "ReleaseJob", "TransitionJob", "UpdateProgress", "Work"),
    *("MarkCompleted", "MarkPartial", "MarkFailed", "CreateAsset", "AppendOutput"),
}
QUEUES = {
    *("ListJobTypeStats", "PauseJobType", "ResumeJobType", "ListConcurrencyLimits"),
    *("SetConcurrencyLimit", "PauseConcurrencyKey", "ResumeConcurrencyKey", "RevokeWatchTokens"),
    *("SetJobTypeDefaults", "ListJobTypes"),
    *("ClaimWebhooks", "SaveWebhook"),
    *("IsActive", "StreamIsActive", "GetMetricSpec", "GetMetrics"),
}

CALLERS: dict[str, tuple[str, set[str], set[str]]] = {
    "owner": ('roles = ["owner"]\nusers = ["ada"]', OWNERS, set()),
    "everybody's owner": ('roles = ["owner"]\nusers = ["*"]', OWNERS, OWNERS),
    "worker": ('roles = ["worker"]\njob_types = ["render"]', WORKERS, WORKERS),
    "operator": ('roles = ["operator"]', OPERATORS | QUEUES, OPERATORS | QUEUES),
    "all": (
        'roles = ["owner", "worker", "operator"]\nusers = ["*"]\njob_types = ["*"]',
        OWNERS | WORKERS | QUEUES,
        OWNERS | WORKERS | QUEUES,
    ),
    "one method": ('methods = ["JobService/GetJob"]\nusers = ["ada"]', {"GetJob"}, set()),
    "counts": (
        'methods = ["QueueService/ListJobTypeStats"]',
        {"ListJobTypeStats"},
        {"ListJobTypeStats"},
    ),
    "a role and a method": (
        """
            roles = ["owner"]
            methods = ["WorkerService/MarkFailed"]
            users = ["ada"]
            job_types = ["*"]
        """,
        OWNERS | {"MarkFailed"},
        {"MarkFailed"},
    ),
    "owner and operator": (
        'roles = ["owner", "operator"]\nusers = ["ada"]',
        OWNERS | QUEUES,
        OPERATORS | QUEUES,
    ),
}
"""What the access file says; what the caller may call for ada; what it may call for bob."""


def token_digest(name: str) -> bytes:
    """Return the SHA-256 of a caller's token, which is its name."""
    return hashlib.sha256(name.encode()).digest()


def rules_of_callers() -> str:
    """Return the rules of an access file with these callers."""
    return "".join(rule(name, rules) for name, (rules, _, _) in CALLERS.items())


def methods() -> Iterator[tuple[str, MethodDescriptor]]:
    """Yield the path and the descriptor of each method."""
    for module, names in (
        (job_service_pb2, ["JobService"]),
        (worker_service_pb2, ["WorkerService"]),
        (queue_service_pb2, ["QueueService"]),
        (webhook_service_pb2, ["WebhookService"]),
        (webhook_delivery_service_pb2, ["WebhookDeliveryService"]),
        (operations_pb2, ["Operations"]),
        (externalscaler_pb2, ["ExternalScaler"]),
    ):
        assert list(module.DESCRIPTOR.services_by_name) == names
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}", method
