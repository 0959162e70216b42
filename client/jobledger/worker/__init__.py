"""The worker library: claims jobs, runs a handler for each, and sends how each one finished."""

from jobledger.worker.context import ClaimedJob
from jobledger.worker.handlers import Middleware, Next
from jobledger.worker.outcomes import Completed, Failed, Outcome, Partial, Release
from jobledger.worker.parameters import InvalidParameters
from jobledger.worker.threads import BlockingJob
from jobledger.worker.worker import Worker

__all__ = [
    "BlockingJob",
    "ClaimedJob",
    "Completed",
    "Failed",
    "InvalidParameters",
    "Middleware",
    "Next",
    "Outcome",
    "Partial",
    "Release",
    "Worker",
]
