"""The client of Jobledger, the service that keeps the state of long-running jobs.

    from jobledger import Client

    with Client("127.0.0.1:50051", user_id="ada") as client:
        job = client.create_job("render", {"scene": "castle"})
        for change in client.watch(job.id):
            print(change.job.status, change.job.progress)

AsyncClient has the same calls for asyncio. Worker claims jobs and runs a function for each. Calls
raise a JobledgerError; see `jobledger.errors`.

A name is imported when it is first used, so that a program loads only what it needs.
"""

import importlib

# Type checkers treat it as true. Importing it from `typing` would take most of the load time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobledger.core.aio.admin import AsyncAdmin
    from jobledger.core.aio.client import AsyncClient
    from jobledger.core.aio.open_group import AsyncJobGroup
    from jobledger.core.aio.pages import AsyncPager
    from jobledger.core.attempts import Attempt, AttemptOutcome
    from jobledger.core.bulk import BulkResult
    from jobledger.core.channel import CHANNEL_OPTIONS
    from jobledger.core.display_states import DisplayState
    from jobledger.core.explanations import (
        Explanation,
        KeyPaused,
        LimitReached,
        NoWorker,
        Queued,
        Scheduled,
        TypePaused,
        WaitKind,
        WaitReason,
        WaitsForItsJobs,
    )
    from jobledger.core.filters import JobFilters
    from jobledger.core.models import (
        Asset,
        FeedEvent,
        Group,
        Job,
        JobChange,
        JobError,
        JobPhase,
        JobStatus,
        JobView,
        ProgressResult,
        RetryPolicy,
        Transition,
    )
    from jobledger.core.new_job import GroupOptions, JobOptions, NewJob, UniquePolicy
    from jobledger.core.options import CallOptions, WatchOptions
    from jobledger.core.output import OutputPiece
    from jobledger.core.page import Page
    from jobledger.core.queues import (
        ConcurrencyLimit,
        EndedJobs,
        JobType,
        JobTypeDefaults,
        JobTypeStats,
        Pause,
        PriorityStats,
    )
    from jobledger.core.streams import AsyncWatch, Watch
    from jobledger.core.sync.admin import Admin
    from jobledger.core.sync.client import Client
    from jobledger.core.sync.open_group import JobGroup
    from jobledger.core.sync.pages import Pager
    from jobledger.core.tasks import JobFailed, Task, TaskOptions
    from jobledger.core.time_spans import days, hours, minutes
    from jobledger.core.watch_token import WatchToken
    from jobledger.core.webhooks import NewWebhook, Webhook
    from jobledger.errors import (
        AccessDenied,
        AssetNameTaken,
        ClientClosed,
        ConcurrencyLimitReached,
        DeadlineExceeded,
        GroupSealed,
        IllegalTransition,
        InternalError,
        InvalidField,
        InvalidToken,
        IsAGroup,
        JobInGroup,
        JobledgerError,
        JobNotDue,
        JobNotFound,
        JobStarted,
        JobTerminal,
        LeaseLost,
        LimitExceeded,
        MessageTooLarge,
        NotAGroup,
        OutputGap,
        Paused,
        RequestIdReused,
        ResumeTokenExpired,
        Unauthenticated,
        Unavailable,
        UniqueKeyTaken,
        VersionMismatch,
        WebhookNotFound,
        WebhookNotHeld,
    )
    from jobledger.version import __version__
    from jobledger.worker.failures import RetryLater
    from jobledger.worker.handlers.declared import HandlerOptions, handler
    from jobledger.worker.handlers.threads import BlockingJob
    from jobledger.worker.job import ClaimedJob
    from jobledger.worker.metrics import JobEnd, WorkerHealth
    from jobledger.worker.outcomes import Completed, Failed, Outcome, Partial, Release
    from jobledger.worker.worker import Worker

__all__ = [
    "CHANNEL_OPTIONS",
    "AccessDenied",
    "Admin",
    "Asset",
    "AssetNameTaken",
    "AsyncAdmin",
    "AsyncClient",
    "AsyncJobGroup",
    "AsyncPager",
    "AsyncWatch",
    "Attempt",
    "AttemptOutcome",
    "BlockingJob",
    "BulkResult",
    "CallOptions",
    "ClaimedJob",
    "Client",
    "ClientClosed",
    "Completed",
    "ConcurrencyLimit",
    "ConcurrencyLimitReached",
    "DeadlineExceeded",
    "DisplayState",
    "EndedJobs",
    "Explanation",
    "Failed",
    "FeedEvent",
    "Group",
    "GroupOptions",
    "GroupSealed",
    "HandlerOptions",
    "IllegalTransition",
    "InternalError",
    "InvalidField",
    "InvalidToken",
    "IsAGroup",
    "Job",
    "JobChange",
    "JobEnd",
    "JobError",
    "JobFailed",
    "JobFilters",
    "JobGroup",
    "JobInGroup",
    "JobNotDue",
    "JobNotFound",
    "JobOptions",
    "JobPhase",
    "JobStarted",
    "JobStatus",
    "JobTerminal",
    "JobType",
    "JobTypeDefaults",
    "JobTypeStats",
    "JobView",
    "JobledgerError",
    "KeyPaused",
    "LeaseLost",
    "LimitExceeded",
    "LimitReached",
    "MessageTooLarge",
    "NewJob",
    "NewWebhook",
    "NoWorker",
    "NotAGroup",
    "Outcome",
    "OutputGap",
    "OutputPiece",
    "Page",
    "Pager",
    "Partial",
    "Pause",
    "Paused",
    "PriorityStats",
    "ProgressResult",
    "Queued",
    "Release",
    "RequestIdReused",
    "ResumeTokenExpired",
    "RetryLater",
    "RetryPolicy",
    "Scheduled",
    "Task",
    "TaskOptions",
    "Transition",
    "TypePaused",
    "Unauthenticated",
    "Unavailable",
    "UniqueKeyTaken",
    "UniquePolicy",
    "VersionMismatch",
    "WaitKind",
    "WaitReason",
    "WaitsForItsJobs",
    "Watch",
    "WatchOptions",
    "WatchToken",
    "Webhook",
    "WebhookNotFound",
    "WebhookNotHeld",
    "Worker",
    "WorkerHealth",
    "__version__",
    "days",
    "handler",
    "hours",
    "minutes",
]

# Where the names above live, for `__getattr__`.
_MODULES = {
    "core.aio.admin": ["AsyncAdmin"],
    "core.aio.client": ["AsyncClient"],
    "core.aio.open_group": ["AsyncJobGroup"],
    "core.aio.pages": ["AsyncPager"],
    "core.attempts": ["Attempt", "AttemptOutcome"],
    "core.bulk": ["BulkResult"],
    "core.channel": ["CHANNEL_OPTIONS"],
    "core.display_states": ["DisplayState"],
    "core.explanations": [
        "Explanation",
        "KeyPaused",
        "LimitReached",
        "NoWorker",
        "Queued",
        "Scheduled",
        "TypePaused",
        "WaitKind",
        "WaitReason",
        "WaitsForItsJobs",
    ],
    "core.filters": ["JobFilters"],
    "core.models": [
        "Asset",
        "FeedEvent",
        "Group",
        "Job",
        "JobChange",
        "JobError",
        "JobPhase",
        "JobStatus",
        "JobView",
        "ProgressResult",
        "RetryPolicy",
        "Transition",
    ],
    "core.new_job": ["GroupOptions", "JobOptions", "NewJob", "UniquePolicy"],
    "core.options": ["CallOptions", "WatchOptions"],
    "core.output": ["OutputPiece"],
    "core.page": ["Page"],
    "core.queues": [
        "ConcurrencyLimit",
        "EndedJobs",
        "JobType",
        "JobTypeDefaults",
        "JobTypeStats",
        "Pause",
        "PriorityStats",
    ],
    "core.streams": ["AsyncWatch", "Watch"],
    "core.sync.admin": ["Admin"],
    "core.sync.client": ["Client"],
    "core.sync.open_group": ["JobGroup"],
    "core.sync.pages": ["Pager"],
    "core.tasks": ["JobFailed", "Task", "TaskOptions"],
    "core.time_spans": ["days", "hours", "minutes"],
    "core.watch_token": ["WatchToken"],
    "core.webhooks": ["NewWebhook", "Webhook"],
    "errors": [
        "AccessDenied",
        "AssetNameTaken",
        "ClientClosed",
        "ConcurrencyLimitReached",
        "DeadlineExceeded",
        "GroupSealed",
        "IllegalTransition",
        "InternalError",
        "InvalidField",
        "InvalidToken",
        "IsAGroup",
        "JobInGroup",
        "JobNotDue",
        "JobNotFound",
        "JobStarted",
        "JobTerminal",
        "JobledgerError",
        "LeaseLost",
        "LimitExceeded",
        "MessageTooLarge",
        "NotAGroup",
        "OutputGap",
        "Paused",
        "RequestIdReused",
        "ResumeTokenExpired",
        "Unauthenticated",
        "Unavailable",
        "UniqueKeyTaken",
        "VersionMismatch",
        "WebhookNotFound",
        "WebhookNotHeld",
    ],
    "version": ["__version__"],
    "worker.job": ["ClaimedJob"],
    "worker.metrics": ["JobEnd", "WorkerHealth"],
    "worker.outcomes": ["Completed", "Failed", "Outcome", "Partial", "Release"],
    "worker.failures": ["RetryLater"],
    "worker.handlers.declared": ["HandlerOptions", "handler"],
    "worker.handlers.threads": ["BlockingJob"],
    "worker.worker": ["Worker"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module(f"{__name__}.errors")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
