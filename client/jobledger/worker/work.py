"""The work of some slots: receives jobs and sends updates, over a stream or as calls.

Usually it uses a stream of Work. If none works, it makes calls for a while, and then tries a
stream again. Until `hello` is answered on the stream, updates are still sent as calls.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Final

import grpc

from jobledger.core.aio.client import AsyncClient
from jobledger.core.job_updates import hello
from jobledger.core.models import Job
from jobledger.core.retry import Backoff, is_transient
from jobledger.core.work_stream import WorkStream
from jobledger.errors import DeadlineExceeded, JobledgerError, MessageTooLarge
from jobledger.v1.worker_service_pb2 import WorkHello, WorkResponse
from jobledger.worker.handlers import Handler
from jobledger.worker.lease import Lease
from jobledger.worker.lease_calls import release
from jobledger.worker.over_calls import CallUpdates
from jobledger.worker.over_stream import StreamUpdates
from jobledger.worker.runner import JobRun
from jobledger.worker.slots import MAX_SLOTS, Slots

STREAMS: Final = 3
"""How many streams in a row may break without being answered before calls are tried."""

LAST_PAUSE: Final = 2.0
"""Seconds between two streams at most, as between two connections of the channel."""

FIRST_DETOUR: Final = 1.0
LAST_DETOUR: Final = 300.0
"""Seconds of calls until a stream is tried again: more each time that only calls work."""

PATIENCE: Final = 0.2
MAX_PATIENCE: Final = 10.0
"""Of the lease, and in seconds: how long a call may take, or a stream be silent on which something
waits for an answer. A frozen server must not use up the lease."""

CLOSE: Final = 5.0
"""Seconds that a stream, or a claim, has to end."""

LASTED: Final = 1.0
"""A stream that lasted for these seconds does not lengthen the pause before the next one."""

UNIMPLEMENTED: Final = grpc.StatusCode.UNIMPLEMENTED

_logger = logging.getLogger("jobledger.worker")


class Work:
    """Gets jobs for some slots, and runs them.

    Args:
        client: makes the calls.
        slots: where the jobs run.
        handlers: by job type.
        group: of the tasks of the jobs.
        lease: seconds.
        worker_id: the worker's.
        state: what the worker's lifespan yielded.
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
    ) -> None:
        self._slots = slots
        self._handlers = handlers
        self._group = group
        self._lease = lease
        self._worker_id = worker_id
        self._state = state
        patience = min(lease * PATIENCE, MAX_PATIENCE)
        self._calls = CallUpdates(client, worker_id, patience)
        self._stream = WorkStream(client.open_work, self, lease=lease, patience=patience)
        self._over_stream = StreamUpdates(self._stream)
        self.updates: CallUpdates | StreamUpdates = self._over_stream
        """How updates are sent at present."""
        self._stopping = False
        self._closed = asyncio.Event()
        self._claims_end = asyncio.Event()
        self._renewed = -math.inf
        self._serving = group.create_task(self._serve(), name="jobledger-work")

    def stop(self) -> None:
        """Claim no more jobs."""
        self._stopping = True
        self._end_claims()
        self._stream.wake()

    async def close(self) -> None:
        """End the stream: no job runs any more."""
        self._closed.set()
        self.updates = self._calls
        self._stream.close()
        await asyncio.wait({self._serving}, timeout=CLOSE)
        self._serving.cancel()
        await asyncio.wait({self._serving})

    # --- a stream, or calls -------------------------------------------------------------------

    async def _serve(self) -> None:
        """Work until `close`. Raises JobledgerError if the service refuses the worker."""
        backoff = Backoff(LAST_PAUSE)
        failures, detour = 0, FIRST_DETOUR
        try:
            while not self._closed.is_set():
                opened = time.monotonic()
                error = await self._stream.serve()
                if error is None:
                    return
                if error.reason and not is_transient(error):
                    raise error
                if self._stream.was_of_use:
                    failures, detour = 0, FIRST_DETOUR
                    if time.monotonic() - opened > LASTED:
                        backoff.reset()
                else:
                    failures += 1
                _logger.debug("stream of work ended: %s", error)
                if isinstance(error, MessageTooLarge) or error.code is UNIMPLEMENTED:
                    detour = LAST_DETOUR
                elif not self._stopping and (
                    self._stream.was_of_use
                    or (failures < STREAMS and not isinstance(error, DeadlineExceeded))
                ):
                    await self._pause(backoff.pause(error))
                    continue
                if self.updates is self._over_stream:
                    _logger.info(
                        "no Work stream can be used (%s); using single calls instead", error
                    )
                answered = await self._work_by_calls(detour)
                # If calls are not answered either, the stream is not the cause.
                detour = min(2 * detour, LAST_DETOUR) if answered else FIRST_DETOUR
                failures = STREAMS
        finally:
            self._use_calls()

    async def _work_by_calls(self, seconds: float) -> bool:
        """Work by calls for a while; return whether one was answered."""
        self._use_calls()
        self._calls.answered = False
        self._claims_end.clear()
        until = time.monotonic() + seconds
        timer = asyncio.get_running_loop().call_later(seconds, self._end_claims)
        try:
            if not self._stopping:
                await self._calls.claim(self._slots, self._lease, self._start, self._claims_end)
        finally:
            timer.cancel()
        await self._pause(until - time.monotonic())
        return self._calls.answered

    def _use_calls(self) -> None:
        self.updates = self._calls
        self._stream.fail()

    def _end_claims(self) -> None:
        self._claims_end.set()
        self._slots.wake()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    # --- for the stream -----------------------------------------------------------------------

    def hello(self) -> WorkHello:
        held = itertools.islice(self._slots.held(), MAX_SLOTS)
        return hello(self._worker_id, self._slots.job_types, self._lease, held)

    def slots(self) -> int:
        return 0 if self._stopping else self._slots.usable

    def answered(self, sent: float) -> None:
        self._calls.recovered()
        if self.updates is not self._over_stream and not self._closed.is_set():
            _logger.info("using a Work stream again")
            self.updates = self._over_stream
        # The service renews leases once in a tenth of the lease, whatever it reads.
        unread = self._lease / 10
        if sent - self._renewed >= unread:
            self._renewed = sent
            for run in self._slots.runs.values():
                run.lease.renewed(sent - unread)

    def receive(self, response: WorkResponse) -> None:
        for signal in response.signals:
            run = self._slots.runs.get((signal.job_id, signal.attempt))
            if run is None:
                continue
            if signal.HasField("cancel_requested"):
                run.cancel(signal.cancel_requested.reason)
            elif signal.HasField("lease_lost"):
                run.lose("the service says so")
        for message in response.jobs:
            self._start(Job.from_proto(message), Lease(self._lease, time.monotonic()))

    # --- jobs ---------------------------------------------------------------------------------

    def _start(self, job: Job, lease: Lease) -> None:
        """Run a job; release it if it came too late."""
        if self._stopping or self._slots.is_full:
            self._group.create_task(self._release(job, lease), name=f"jobledger-{job.id}")
            return
        run = JobRun(self, job, self._handlers[job.job_type], lease, state=self._state)
        self._slots.fill(run)
        self._group.create_task(self._run(run), name=f"jobledger-{job.id}")

    async def _release(self, job: Job, lease: Lease) -> None:
        try:
            await release(lambda: self.updates.release(job), lease, lambda: self._stopping)
        except JobledgerError as error:
            _logger.warning("job %s came too late, and was not released: %s", job.id, error)

    async def _run(self, run: JobRun) -> None:
        try:
            await run.run()
        except Exception:
            _logger.exception("job %s: a bug", run.job.id)
        finally:
            self._slots.release(run)
            if run.lost:
                self._stream.wake()  # its slot is usable again
