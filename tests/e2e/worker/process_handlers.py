"""Handlers for `executor="process"`: a process has to be able to import them."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from opentelemetry import trace

from jobledger.worker import (
    BlockingJob,
    Completed,
    Failed,
    Outcome,
    Partial,
    Release,
    RetryLater,
)

_LIBC = ctypes.PyDLL(None)


def whole(job: BlockingJob) -> Completed:
    job.progress(50, f"half of {job.parameters['scene']}")
    asset = job.add_asset(
        "image/png", url="https://example.com/a.png", file_size=7, name="a", etag="e"
    )
    return Completed({"pid": os.getpid(), "asset": asset.url, "attempt": job.attempt})


def pid(job: BlockingJob) -> dict[str, object]:
    return {"pid": os.getpid()}


def terminates_a_program(job: BlockingJob) -> dict[str, object]:
    with subprocess.Popen(["sleep", "60"]) as program:
        program.terminate()
        try:
            return {"code": program.wait(10)}
        finally:
            program.kill()


def trace_id(job: BlockingJob) -> dict[str, object]:
    return {"trace": f"{trace.get_current_span().get_span_context().trace_id:032x}"}


def returns_its_own_types(job: BlockingJob) -> Mapping[str, object]:
    class Count(int):
        pass

    return defaultdict(lambda: 1, count=Count(7), nested=MappingProxyType({"a": [1]}))


def raises(job: BlockingJob) -> None:
    raise FileNotFoundError("no scene 'castle'")


class Unpicklable(Exception):
    def __init__(self, scene: str, frame: int) -> None:
        super().__init__(f"{scene}: frame {frame}")


def raises_unpicklable(job: BlockingJob) -> None:
    raise Unpicklable("castle", 7)


def ends_as_told(job: BlockingJob) -> Outcome | None:
    """End the first attempt as the parameters say."""
    if job.attempt > 1:
        return None
    hour = 3600.0
    match job.parameters["end"]:
        case "raises":
            raise FileNotFoundError("no scene 'castle'")
        case "raises RetryLater":
            raise RetryLater("busy")
        case "raises RetryLater after":
            raise RetryLater("busy", after=hour)
        case "returns Failed":
            return Failed("no disk", "NO_DISK", retryable=True)
        case "returns Failed after":
            return Failed("no disk", "NO_DISK", retryable=True, retry_after=hour)
        case "returns Release after":
            return Release(after=hour)
        case "raises another":
            raise ValueError("no such scene")
    raise AssertionError("it is not told")


def goes_on(job: BlockingJob) -> dict[str, object]:
    """Fail after a checkpoint, until the third attempt."""
    if job.attempt < 3:
        job.progress(10 * job.attempt, checkpoint={"frame": job.attempt})
        raise ConnectionResetError(f"attempt {job.attempt}")
    assert job.last_error is not None
    return {"checkpoint": job.checkpoint, "last": job.last_error.message}


def raises_eof(job: BlockingJob) -> None:
    raise EOFError("the scene is cut off")


def returns_nonsense(job: BlockingJob) -> object:
    return [1]


def refused_asset(job: BlockingJob) -> None:
    job.add_asset("image/png")


def exits(job: BlockingJob) -> None:
    os._exit(job.parameters["code"])


def killed(job: BlockingJob) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def computes(job: BlockingJob) -> dict[str, object]:
    """Hold the GIL until a file exists."""
    file = Path(job.parameters["file"])
    if "started" in job.parameters:
        Path(job.parameters["started"]).write_text("yes")
    while not file.exists():
        _LIBC.usleep(10_000)  # PyDLL keeps the GIL
    return {"pid": os.getpid()}


def until_cancelled(job: BlockingJob) -> Partial:
    try:
        while True:
            job.progress()
    except asyncio.CancelledError:
        # Raised once; what belongs to cleaning up can still be reported.
        job.progress(10, "cleaning up")
        return Partial({"reason": job.cancel_reason})


def deaf(job: BlockingJob) -> None:
    Path(job.parameters["file"]).write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def logs(job: BlockingJob) -> None:
    job.log.warning("from %s", "a process")
    logging.getLogger("elsewhere").warning("too")


def needs_state(job: BlockingJob) -> None:
    assert job.state is not None


_left_behind: list[threading.Thread] = []


def leaves_a_thread(job: BlockingJob) -> dict[str, object]:
    """Leave a thread that reports on until it is stopped; return how many are stopped."""

    def report() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                job.progress(99, job.id)

    stopped = 0
    for thread in _left_behind:
        thread.join()
        stopped += 1
    _left_behind.append(threading.Thread(target=report, daemon=True))
    _left_behind[-1].start()
    return {"stopped": stopped, "pid": os.getpid()}


def tracks(job: BlockingJob) -> dict[str, object]:
    for _ in job.track(range(10**12 if job.parameters else 3)):
        pass
    return {"pid": os.getpid()}


def writes(job: BlockingJob) -> None:
    job.write("from a process ")
    job.progress(50)
    with job.output("data.csv", content_type="text/csv") as stream:
        print("a,b", file=stream)
    job.write("to its end")
