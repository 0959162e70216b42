"""The methods of Jobledger's own services, each once, with all that calls need to know of it.

A method that is not in the table stops the server at its start.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from google.longrunning import operations_pb2 as operations
from google.protobuf.message import Message

from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1 import queue_service_pb2 as queues
from jobledger.v1 import webhook_service_pb2 as webhooks
from jobledger.v1 import worker_service_pb2 as workers
from jobledger_server.rpc.keda import externalscaler_pb2 as scaler


class Role(StrEnum):
    """What a caller does with jobs."""

    OWNER = "owner"
    """Creates, reads, repeats, cancels and deletes the jobs of the users that it may act for."""

    WORKER = "worker"
    """Runs jobs of the types that it may work on."""

    OPERATOR = "operator"
    """Reads, repeats, cancels and deletes the jobs of all users; counts, pauses and limits jobs."""


JOB_SERVICE = "/jobledger.v1.JobService/"
WORKER_SERVICE = "/jobledger.v1.WorkerService/"
QUEUE_SERVICE = "/jobledger.v1.QueueService/"
WEBHOOK_SERVICE = "/jobledger.v1.WebhookService/"
OPERATIONS = "/google.longrunning.Operations/"
"""google.longrunning's service. The owner is in its metadata."""
EXTERNAL_SCALER = "/externalscaler.ExternalScaler/"
"""KEDA's service."""


class Method(NamedTuple):
    """A method.

    Attributes:
        path: Its path, as gRPC names it.
        request: The type of its requests.
        roles: Who may call it.
        reads: It changes nothing, so it can be refused once it has read its answer.
        lasts: A call may outlast a change of its caller's permissions.
        large: Its request contains a Struct or assets, and is an `UnparsedRequest`.
        all_users: It is for all users if its request names none.
        watches: The holder of a watch token may call it.
    """

    path: str
    request: type[Message]
    roles: frozenset[Role]
    reads: bool = False
    lasts: bool = False
    large: bool = False
    all_users: bool = False
    watches: bool = False

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
        Method(f"{JOB_SERVICE}CreateJob", jobs.CreateJobRequest, _OWNER, large=True),
        Method(f"{JOB_SERVICE}BatchCreateJobs", jobs.BatchCreateJobsRequest, _OWNER, large=True),
        Method(f"{JOB_SERVICE}GetJob", jobs.GetJobRequest, _READER, reads=True, watches=True),
        Method(f"{JOB_SERVICE}BatchGetJobs", jobs.BatchGetJobsRequest, _READER, reads=True),
        Method(
            f"{JOB_SERVICE}ListJobs",
            jobs.ListJobsRequest,
            _READER,
            reads=True,
            all_users=True,
            watches=True,
        ),
        Method(f"{JOB_SERVICE}CancelJob", jobs.CancelJobRequest, _READER),
        Method(f"{JOB_SERVICE}DeleteJob", jobs.DeleteJobRequest, _READER),
        Method(f"{JOB_SERVICE}RetryJob", jobs.RetryJobRequest, _READER),
        Method(f"{JOB_SERVICE}RetryJobs", jobs.RetryJobsRequest, _READER, all_users=True),
        Method(f"{JOB_SERVICE}CancelJobs", jobs.CancelJobsRequest, _READER, all_users=True),
        Method(f"{JOB_SERVICE}DeleteJobs", jobs.DeleteJobsRequest, _READER, all_users=True),
        Method(f"{JOB_SERVICE}ListAssets", jobs.ListAssetsRequest, _READER, reads=True),
        Method(f"{JOB_SERVICE}ListTransitions", jobs.ListTransitionsRequest, _READER, reads=True),
        Method(f"{JOB_SERVICE}ListAttempts", jobs.ListAttemptsRequest, _READER, reads=True),
        Method(f"{JOB_SERVICE}WatchJob", jobs.WatchJobRequest, _READER, lasts=True, watches=True),
        Method(
            f"{JOB_SERVICE}WatchJobs",
            jobs.WatchJobsRequest,
            _READER,
            lasts=True,
            all_users=True,
            watches=True,
        ),
        Method(f"{JOB_SERVICE}CreateWatchToken", jobs.CreateWatchTokenRequest, _OWNER),
        Method(f"{JOB_SERVICE}RevokeWatchTokens", jobs.RevokeWatchTokensRequest, _OPERATOR),
        Method(f"{OPERATIONS}GetOperation", operations.GetOperationRequest, _READER, reads=True),
        Method(
            f"{OPERATIONS}ListOperations", operations.ListOperationsRequest, _READER, reads=True
        ),
        Method(f"{OPERATIONS}CancelOperation", operations.CancelOperationRequest, _READER),
        Method(f"{OPERATIONS}DeleteOperation", operations.DeleteOperationRequest, _READER),
        Method(
            f"{OPERATIONS}WaitOperation",
            operations.WaitOperationRequest,
            _READER,
            reads=True,
            lasts=True,
        ),
        Method(f"{WORKER_SERVICE}ClaimJobs", workers.ClaimJobsRequest, _WORKER, lasts=True),
        Method(f"{WORKER_SERVICE}ReleaseJob", workers.ReleaseJobRequest, _WORKER),
        Method(f"{WORKER_SERVICE}TransitionJob", workers.TransitionJobRequest, _WORKER, large=True),
        Method(
            f"{WORKER_SERVICE}UpdateProgress", workers.UpdateProgressRequest, _WORKER, large=True
        ),
        Method(f"{WORKER_SERVICE}Work", workers.WorkRequest, _WORKER, lasts=True),
        Method(f"{WORKER_SERVICE}MarkCompleted", workers.MarkCompletedRequest, _WORKER, large=True),
        Method(f"{WORKER_SERVICE}MarkPartial", workers.MarkPartialRequest, _WORKER, large=True),
        Method(f"{WORKER_SERVICE}MarkFailed", workers.MarkFailedRequest, _WORKER, large=True),
        Method(f"{WORKER_SERVICE}CreateAsset", workers.CreateAssetRequest, _WORKER),
        Method(f"{QUEUE_SERVICE}GetStats", queues.GetStatsRequest, _OPERATOR, reads=True),
        Method(
            f"{QUEUE_SERVICE}ExplainJob",
            queues.ExplainJobRequest,
            _READER,
            reads=True,
            all_users=True,
        ),
        Method(f"{QUEUE_SERVICE}PauseJobType", queues.PauseJobTypeRequest, _OPERATOR),
        Method(f"{QUEUE_SERVICE}ResumeJobType", queues.ResumeJobTypeRequest, _OPERATOR),
        Method(f"{QUEUE_SERVICE}SetConcurrencyLimit", queues.SetConcurrencyLimitRequest, _OPERATOR),
        Method(f"{QUEUE_SERVICE}PauseConcurrencyKey", queues.PauseConcurrencyKeyRequest, _OPERATOR),
        Method(
            f"{QUEUE_SERVICE}ResumeConcurrencyKey", queues.ResumeConcurrencyKeyRequest, _OPERATOR
        ),
        Method(
            f"{QUEUE_SERVICE}ListConcurrencyLimits",
            queues.ListConcurrencyLimitsRequest,
            _OPERATOR,
            reads=True,
        ),
        Method(
            f"{WEBHOOK_SERVICE}CreateWebhook",
            webhooks.CreateWebhookRequest,
            _READER,
            all_users=True,
        ),
        Method(
            f"{WEBHOOK_SERVICE}ListWebhooks",
            webhooks.ListWebhooksRequest,
            _READER,
            reads=True,
            all_users=True,
        ),
        Method(
            f"{WEBHOOK_SERVICE}DeleteWebhook",
            webhooks.DeleteWebhookRequest,
            _READER,
            all_users=True,
        ),
        Method(
            f"{WEBHOOK_SERVICE}EnableWebhook",
            webhooks.EnableWebhookRequest,
            _READER,
            all_users=True,
        ),
        # Deliverers read the jobs of all users, as operators do.
        Method(f"{WEBHOOK_SERVICE}ClaimWebhooks", webhooks.ClaimWebhooksRequest, _OPERATOR),
        Method(f"{WEBHOOK_SERVICE}SaveWebhook", webhooks.SaveWebhookRequest, _OPERATOR),
        Method(f"{EXTERNAL_SCALER}IsActive", scaler.ScaledObjectRef, _OPERATOR, reads=True),
        Method(f"{EXTERNAL_SCALER}StreamIsActive", scaler.ScaledObjectRef, _OPERATOR, lasts=True),
        Method(f"{EXTERNAL_SCALER}GetMetricSpec", scaler.ScaledObjectRef, _OPERATOR, reads=True),
        Method(f"{EXTERNAL_SCALER}GetMetrics", scaler.GetMetricsRequest, _OPERATOR, reads=True),
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
