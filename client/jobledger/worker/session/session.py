"""The session of some slots with the service: it is pushed jobs, and runs them."""

import asyncio
import functools
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import grpc

from jobledger.core.aio.client import AsyncClient
from jobledger.core.models import Job
from jobledger.core.reconnecting import refused_later
from jobledger.core.retry import Backoff, is_transient, wait_at_most
from jobledger.errors import ClientClosed, JobledgerError
from jobledger.v1.worker_service_pb2 import WorkHello, WorkResponse
from jobledger.worker.handlers.handler import Handler
from jobledger.worker.handlers.job_run import JobRun
from jobledger.worker.job import Stop, log_name
from jobledger.worker.metrics import WorkerFigures
from jobledger.worker.outcomes import Release
from jobledger.worker.session.job_output import JobOutput, OutputRoom
from jobledger.worker.session.job_updates import JobUpdates
from jobledger.worker.session.lease import Lease
from jobledger.worker.session.messages import hello
from jobledger.worker.session.slots import MAX_SLOTS, Slots
from jobledger.worker.session.work_stream import WorkStream

LAST_PAUSE: Final = 2.0
"""Seconds between two streams at most, as between two connections of the channel."""

LASTED: Final = 1.0
"""A stream that lasted for these seconds does not lengthen the pause before the next one."""

CLOSE: Final = 5.0
"""Seconds that a stream has to end."""

UNREAD: Final = 0.1
"""Of the lease: the service renews leases at most once in this time, whatever it reads."""

_logger = logging.getLogger("jobledger.worker")


class Session:
    """Gets jobs for some slots over a stream of Work, and runs them.

    Args:
        client: opens the streams.
        slots: where the jobs run.
        handlers: by job type.
        group: of the tasks of the jobs.
        lease: seconds.
        worker_id: the worker's.
        state: what the worker's lifespan yielded.
        figures: count what becomes of the jobs.
        room: for output that waits.
        running: returns the jobs that run in the event loop, those of other slots too.
    """

    def __init__(
        self,
        client: AsyncClient,
        slots: Slots,
        handlers: Mapping[str, Handler],
        group: asyncio.TaskGroup,
        *,
        lease: float,
        worker_id: str,
        state: Any,
        figures: WorkerFigures,
        room: OutputRoom,
        running: Callable[[], Iterable[JobRun]],
    ) -> None:
        self._slots = slots
        self._handlers = handlers
        self._group = group
        self._lease = lease
        self._worker_id = worker_id
        self._state = state
        self._figures = figures
        self._room = room
        self._running = running
        self._client = client
        self._target = client.target
        self._ready = False
        self._clock = asyncio.get_running_loop().time
        slots.last_message = self._clock()
        self._stream = WorkStream(client.open_work, lease)
        self._stopping = False
        self._all_stuck = False
        self._closed = asyncio.Event()
        self._is_open = False
        self._failing = False
        self._renews_token = client.renews_token
        self._accepted: float | None = None  # when a stream was last open
        self._renewed = -math.inf
        self._send_slots()
        self._serving = group.create_task(self._serve(), name="jobledger-session")

    def stop(self) -> None:
        """Take no more jobs."""
        self._stopping = True
        self._send_slots()

    async def close(self) -> None:
        """End the stream: no job runs any more."""
        self._closed.set()
        self._stream.close()
        await asyncio.wait({self._serving}, timeout=CLOSE)
        self._serving.cancel()
        await asyncio.wait({self._serving})

    # --- streams ------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Open one stream after the other, until `close`.

        Raises:
            JobledgerError: the service refuses the worker.
        """
        end: JobledgerError = ClientClosed("the worker has stopped")
        try:
            await self._serve_streams()
        except JobledgerError as error:
            end = error
            raise
        finally:
            self._stream.fail(end)

    async def _serve_streams(self) -> None:
        backoff = Backoff(LAST_PAUSE)
        while not self._closed.is_set():
            opened = self._clock()
            self._is_open = False
            if (error := await self._stream.serve(self._hello(), self._receive)) is None:
                return
            if error.code is grpc.StatusCode.UNIMPLEMENTED:
                raise JobledgerError(
                    "no Work stream: the service does not have it, or a proxy before it does not "
                    f"let bidirectional streams pass ({error})",
                    code=error.code,
                ) from error
            if self._is_open:
                self._accepted = self._clock()
            if not (is_transient(error) or self._awaits_token(error)):
                raise error
            if self._is_open and self._clock() - opened > LASTED:
                backoff.reset()
            self._log_end(error)
            await wait_at_most(backoff.pause(error), self._closed)

    def _awaits_token(self, error: JobledgerError) -> bool:
        """Whether a later token may be accepted before the leases are over."""
        if error.code is not grpc.StatusCode.UNAUTHENTICATED or self._accepted is None:
            return False
        if not self._renews_token:
            raise refused_later(error)
        return self._clock() - self._accepted < self._lease

    def _log_end(self, error: JobledgerError) -> None:
        # A server ends the streams that it has served when it stops, or when they are old.
        expected = self._is_open and error.code is grpc.StatusCode.UNAVAILABLE
        level = logging.DEBUG if expected or self._failing else logging.WARNING
        self._failing = not expected
        _logger.log(level, "the Work stream ended (%s); opening another one", error)

    def _hello(self) -> WorkHello:
        held = itertools.islice(self._slots.held(), MAX_SLOTS)
        return hello(self._worker_id, self._slots.job_types, self._lease, held)

    def _send_slots(self) -> None:
        self._stream.set_slots(0 if self._stopping else self._slots.usable)
        all_stuck = self._slots.stuck >= self._slots.size and not self._stopping
        if all_stuck != self._all_stuck:
            self._all_stuck = all_stuck
            self._log_all_stuck()

    def _log_all_stuck(self) -> None:
        job_types = ", ".join(self._slots.job_types)
        if self._all_stuck:
            text = "no more jobs are taken, of the types %s: handlers that do not stop keep all "
            text += "slots (%d); restart the worker"
            _logger.error(text, job_types, self._slots.size)
        else:
            _logger.warning("jobs of the types %s are taken again", job_types)

    def _receive(self, response: WorkResponse, read: float | None) -> None:
        self._is_open = True
        if not self._ready:
            self._ready = True
            job_types = ", ".join(self._slots.job_types)
            text = "worker %s is ready; job types: %s; slots: %d; server: %s"
            _logger.info(text, self._worker_id, job_types, self._slots.size, self._target)
        self._slots.last_message = self._clock()
        if self._failing:
            self._failing = False
            _logger.warning("the service answers again")
        unread = self._lease * UNREAD
        if read is not None and read - self._renewed >= unread:
            self._renewed = read
            self._slots.renew_leases(read - unread)
        for message in response.jobs:
            self._start(Job.from_proto(message))
        # Also of these jobs: one may have been cancelled while it was claimed.
        for signal in response.signals:
            run = self._slots.runs.get((signal.job_id, signal.attempt))
            if run is None:
                continue
            if signal.HasField("cancel_requested"):
                run.cancel(signal.cancel_requested.reason)
            elif signal.HasField("lease_lost"):
                self._lose(run, Stop.LOST, "the service says so")

    # --- jobs ---------------------------------------------------------------------------------

    def _start(self, job: Job) -> None:
        """Run a job; release it if it came too late."""
        lease = Lease(self._lease, self._clock(), clock=self._clock)
        if self._stopping or self._slots.is_full:
            _logger.info("%s came too late", log_name(job))
            late = self._updates(job, lease, lambda *_: None)
            running = late.send_outcome(Release())
        else:
            _logger.info("%s: claimed", log_name(job))
            run = JobRun(
                job,
                self._handlers[job.job_type],
                self._state,
                on_stuck=lambda: self._stuck(run),
            )
            updates = self._updates(
                job,
                lease,
                functools.partial(self._lose, run),
                functools.partial(self._blocked, run),
            )
            self._slots.fill(run, lease)
            running = self._run(run, updates)
        self._group.create_task(running, name=f"jobledger-{job.id}")

    def _updates(
        self,
        job: Job,
        lease: Lease,
        on_lost: Callable[[Stop, str], None],
        blocked: Callable[[], str] = str,
    ) -> JobUpdates:
        spawn = functools.partial(self._group.create_task, name=f"jobledger-output-{job.id}")
        output = JobOutput(job, lease, self._stream, self._room, spawn=spawn, on_lost=on_lost)
        return JobUpdates(
            job, lease, self._stream, output, on_lost=on_lost, blocked=blocked, client=self._client
        )

    async def _run(self, run: JobRun, updates: JobUpdates) -> None:
        begun = self._clock()
        try:
            await run.run(updates)
        except Exception:
            _logger.exception("%s: a bug", log_name(run.job))
        finally:
            updates.output.close()
            self._slots.release(run)
            self._send_slots()
            self._figures.end(run.job.job_type, updates.accepted, self._clock() - begun)

    def _stuck(self, run: JobRun) -> None:
        """Take note that a handler goes on although its job is over: it keeps its slot."""
        if (thread := run.left_thread) is not None:
            name = log_name(run.job)
            if self._stopping:
                _logger.warning("%s does not stop; its thread is left behind", name)
            else:
                self._slots.keep(thread)
                thread.add_done_callback(lambda _: self._returned(name))
                text = "%s does not stop; its thread keeps its slot until it returns; slots: %d, "
                text += "kept in this way: %d"
                _logger.error(text, name, self._slots.size, self._slots.stuck)
        self._send_slots()

    def _returned(self, name: str) -> None:
        _logger.warning("%s: its thread has returned, and its slot is free", name)
        self._send_slots()

    def _lose(self, run: JobRun, reason: Stop, why: str) -> None:
        run.lose(reason, f"{why}{self._blocked(run)}")
        self._send_slots()

    def _blocked(self, run: JobRun) -> str:
        """Say which handlers may have blocked the event loop, if that was the cause of the loss."""
        if not (seconds := self._slots.lease_of(run).blocked):
            return ""
        running = {each.job.job_type for each in (run, *self._running())}
        names = ", ".join(sorted(name for name in running if self._handlers[name].in_loop))
        text = f"; the event loop was blocked for {seconds:.1f} s"
        if not names:
            return text
        return f"{text} while it ran {names}: code that blocks belongs in a plain function"
