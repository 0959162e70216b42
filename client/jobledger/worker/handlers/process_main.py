"""What runs in the process of a handler: it receives jobs, and passes calls on to the worker."""

import asyncio
import contextlib
import dataclasses
import logging
import logging.handlers
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from jobledger.core.conversion import JsonObject, from_struct, to_struct
from jobledger.core.models import Asset, Job
from jobledger.worker.handlers.raised import raised
from jobledger.worker.handlers.signatures import with_parameters
from jobledger.worker.handlers.threads import tracked
from jobledger.worker.handlers.tracing import continued_trace
from jobledger.worker.job import (
    BlockingJobLog,
    Counted,
    ItemT,
    JobFacts,
    RunState,
    checkpoint_of,
)
from jobledger.worker.outcomes import Outcome, Release, outcome_of
from jobledger.worker.output import (
    WRITER,
    BlockingJobOutput,
    checked_content_type,
    checked_stream,
    encoded,
)

ENDS: Final = ("returned", "raised", "cancelled")
"""How a handler ends; whatever else a process sends is a call, or a log record."""


class _Worker:
    """The worker, as its process sees it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._calling = threading.Lock()

    def send(self, kind: str, value: object) -> None:
        with self._lock:
            self._connection.send((kind, value))

    def receive(self) -> Any:
        return self._connection.recv()

    def call(self, name: str, arguments: dict[str, Any], run: RunState) -> Any:
        with self._calling:
            if run.returned:
                # From a thread that the handler has left behind.
                raise asyncio.CancelledError
            self.send(name, arguments)
            how, value, run.cancel_reason = self.receive()
        if how == "cancelled":
            raise asyncio.CancelledError
        if how == "raised":
            raise value
        return value

    def no_more_calls(self, run: RunState) -> None:
        with self._calling:
            run.returned = True


class _ProcessJob(JobFacts):
    """A job in the hands of a handler in a process: as BlockingJob."""

    def __init__(self, job: Job, run: RunState, worker: _Worker) -> None:
        super().__init__(job, None, run)
        self._worker = worker

    @property
    def state(self) -> Any:
        raise RuntimeError("state: what the lifespan yielded stays in the worker's process")

    def progress(
        self,
        progress: float | None = None,
        message: str | None = None,
        *,
        checkpoint: JsonObject | None = None,
        wait: bool = False,
    ) -> None:
        arguments = {
            "progress": progress,
            "message": message,
            "checkpoint": checkpoint_of(checkpoint),
            "wait": wait,
        }
        self._worker.call("progress", arguments, self._run)

    def add_asset(
        self,
        asset_type: str,
        *,
        url: str = "",
        storage_path: str = "",
        file_size: int = 0,
        name: str = "",
        sha256: str = "",
        etag: str = "",
    ) -> Asset:
        arguments = {
            "asset_type": asset_type,
            "url": url,
            "storage_path": storage_path,
            "file_size": file_size,
            "name": name,
            "sha256": sha256,
            "etag": etag,
        }
        asset = self._worker.call("add_asset", arguments, self._run)
        assert isinstance(asset, Asset)  # noqa: S101
        return asset

    @cached_property
    def log(self) -> BlockingJobLog:
        return BlockingJobLog(self._job, self.write)

    def write(self, data: str | bytes, *, stream: str = "", wait: bool = False) -> None:
        self._write(checked_stream(stream), "", data, wait)

    def output(self, stream: str = "", *, content_type: str = "") -> BlockingJobOutput:
        write = partial(self._write, checked_stream(stream), checked_content_type(content_type))
        return BlockingJobOutput(write, stream)

    def run_program(
        self,
        command: Sequence[str],
        *,
        stream: str = "",
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        arguments = {"command": list(command), "stream": stream, "cwd": cwd, "env": env}
        return int(self._worker.call("run_program", arguments, self._run))

    def put(self, data: bytes, stream: str) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the handler has returned
            self._worker.call("put", {"data": data, "stream": stream}, self._run)

    def _write(self, stream: str, content_type: str, data: str | bytes, wait: bool) -> None:  # noqa: FBT001
        arguments = {
            "stream": stream,
            "content_type": content_type,
            "data": encoded(data),
            "wait": wait,
        }
        self._worker.call("_write", arguments, self._run)

    def track(self, items: Iterable[ItemT], *, total: int | None = None) -> Iterator[ItemT]:
        # Only a report asks the worker whether to stop.
        counted = Counted(items, total, time.monotonic)  # noqa: TID251  # there is no loop
        return tracked(iter(items), counted, self.progress, lambda: None)


class _ToWorker(logging.handlers.QueueHandler):
    """Sends log records to the worker, which knows where they go."""

    def __init__(self, worker: _Worker) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._worker = worker

    def enqueue(self, record: logging.LogRecord) -> None:
        self._worker.send("log", record)


def serve(connection: Any, level: int) -> None:
    """Run jobs until the worker closes the connection."""
    # The worker decides when its processes end; Ctrl-C reaches the whole process group. Not
    # SIG_IGN: a program that a handler starts would inherit that, and could not be terminated.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = _Worker(connection)
    root = logging.getLogger()
    root.setLevel(level)
    root.addHandler(_ToWorker(worker))
    with contextlib.suppress(EOFError, OSError):
        worker.send("ready", None)
        while True:
            function, job = worker.receive()
            worker.send("started", None)
            worker.send(*_run(function, job, worker))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _run(function: bytes, job: Job, worker: _Worker) -> tuple[str, object]:
    run = RunState()
    try:
        handler = with_parameters(pickle.loads(function))  # noqa: S301
        with continued_trace(job):
            claimed = _ProcessJob(job, run, worker)
            WRITER.set(claimed)
            return "returned", _plain(outcome_of(handler(claimed)))
    except asyncio.CancelledError:
        return "cancelled", None
    except BaseException as error:  # noqa: BLE001
        return "raised", raised(error)
    finally:
        worker.no_more_calls(run)


def _plain(outcome: Outcome | None) -> Outcome | None:
    """Return the outcome with Python's own types of JSON: others may not be picklable."""
    if outcome is None or isinstance(outcome, Release):
        return outcome
    objects: dict[str, Any] = {
        name: from_struct(struct)
        for name in ("result", "details")
        if (struct := to_struct(getattr(outcome, name, None), name)) is not None
    }
    return dataclasses.replace(outcome, **objects)
