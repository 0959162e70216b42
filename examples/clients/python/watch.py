"""For the owners of jobs: follow one, and what it writes, to the end."""

import random
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from typing import TypeVar

import grpc
from connect import Client
from failure import read_error
from printing import as_json, emit

from jobledger.v1.job_pb2 import JobStatus
from jobledger.v1.job_service_pb2 import (
    WatchJobRequest,
    WatchJobResponse,
    WatchOutputRequest,
    WatchOutputResponse,
)

ENDED = {
    JobStatus.JOB_STATUS_COMPLETED,
    JobStatus.JOB_STATUS_PARTIAL,
    JobStatus.JOB_STATUS_FAILED,
}
Answer = TypeVar("Answer")


def watch(client: Client, options: Namespace) -> None:
    """Follow a job to its end."""
    request = WatchJobRequest(
        job_id=options.job, user_id=options.user, after_version=options.after_version
    )

    def take(answer: WatchJobResponse) -> bool:
        job = answer.job
        ended = job.status in ENDED
        if ended or (not answer.heartbeat and job.version > request.after_version):
            request.after_version = job.version
            steps = [as_json(step) for step in answer.transitions]
            emit("changed", job=as_json(job), transitions=steps)
        return ended

    follow(lambda: client.jobs.WatchJob(request), take)


def output(client: Client, options: Namespace) -> None:
    """Follow what a job writes, until nothing can come any more."""
    request = WatchOutputRequest(
        job_id=options.job, user_id=options.user, after_offset=options.after_offset
    )

    def take(answer: WatchOutputResponse) -> bool:
        # A message without news is a heartbeat, or the first one of a stream.
        if answer.closed or answer.next_offset > request.after_offset:
            request.after_offset = answer.next_offset
            emit("output", output=as_json(answer))
        return answer.closed

    follow(lambda: client.jobs.WatchOutput(request), take)


def follow(open_stream: Callable[[], Iterable[Answer]], take: Callable[[Answer], bool]) -> None:
    """Read as many streams as it takes.

    Args:
        open_stream: Opens one that goes on after what was taken.
        take: Takes a message, and returns whether it was the last one.
    """
    failures = 0
    while True:
        delay = 0.0
        try:
            for number, answer in enumerate(open_stream()):
                if take(answer):
                    return
                # Not after the message that greets each stream: a server that breaks
                # right after it would be called ten times a second.
                if number > 0:
                    failures = 0
            # OK before the last message: never the server's, a proxy's perhaps.
        except grpc.RpcError as error:
            if not is_transient(error):
                raise
            delay = (read_error(error)["retry_delay_ms"] or 0) / 1000
        # Full jitter, on top of what the server asks for: after a restart all watchers
        # come back, but not at once.
        time.sleep(delay + random.uniform(0, min(0.1 * 2 ** min(failures, 10), 5.0)))
        failures += 1


def is_transient(error: grpc.RpcError) -> bool:
    """Whether another stream may succeed."""
    match error.code():
        case (
            grpc.StatusCode.UNAVAILABLE
            | grpc.StatusCode.RESOURCE_EXHAUSTED
            | grpc.StatusCode.CANCELLED
            | grpc.StatusCode.DEADLINE_EXCEEDED
        ):
            return True
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNKNOWN:
            # A stream reset on the way, unless the server says why.
            return not read_error(error)["reason"]
        case _:
            return False
