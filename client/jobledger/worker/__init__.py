"""The worker library: claims jobs, runs a handler for each, and sends how each one finished."""

from jobledger.worker.failures import RetryLater
from jobledger.worker.handlers.declared import handler
from jobledger.worker.handlers.handler import Middleware, Next
from jobledger.worker.handlers.parameters import InvalidParameters
from jobledger.worker.handlers.processes import ProcessDied
from jobledger.worker.handlers.task_handlers import InvalidResult
from jobledger.worker.handlers.threads import BlockingJob
from jobledger.worker.job import ClaimedJob
from jobledger.worker.metrics import JobEnd, WorkerHealth
from jobledger.worker.outcomes import Completed, Failed, Outcome, Partial, Release
from jobledger.worker.output import BlockingJobOutput, JobLogHandler, JobOutput
from jobledger.worker.worker import Worker

__all__ = [
    "BlockingJob",
    "BlockingJobOutput",
    "ClaimedJob",
    "Completed",
    "Failed",
    "InvalidParameters",
    "InvalidResult",
    "JobEnd",
    "JobLogHandler",
    "JobOutput",
    "Middleware",
    "Next",
    "Outcome",
    "Partial",
    "ProcessDied",
    "Release",
    "RetryLater",
    "Worker",
    "WorkerHealth",
    "handler",
]
