"""One caller that takes all that a server lets it take, in every way that its quotas must hold."""

import asyncio
import itertools
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.struct_pb2 import Struct

from benchmarks.load import BATCH, JOB_TYPE, Reply
from benchmarks.load.calls import WORK, Target
from benchmarks.load.http2 import Call, CallFailed, connect
from benchmarks.load.messages import create_requests, update
from benchmarks.load.watches import WATCH_JOBS
from jobledger.v1.job_pb2 import JobView
from jobledger.v1.job_service_pb2 import (
    BatchCreateJobsRequest,
    CreateJobRequest,
    ListJobsRequest,
    WatchJobsRequest,
)
from jobledger.v1.worker_service_pb2 import WorkHello, WorkRequest

LIST_JOBS = "/jobledger.v1.JobService/ListJobs"

KINDS = ("create", "create_batch", "list", "watch", "unread", "large")
"""What it does: creates jobs, one and 500 at once; lists them; opens watches and leaves them open;
asks for what it never reads, which is a list, a watch, or the results of a worker; and sends
requests near the limits of their size, and beyond."""

LARGE_STRUCT_BYTES = 250_000
"""Of parameters that are accepted."""

LARGEST_PAGE = 1000
UNREAD_UPDATES = 100
"""Of a worker that does not read their results."""


class Abuse:
    """A command."""

    async def attack(
        self,
        target: str,
        token: str,
        in_flight: int,
        seconds: float,
        kinds: Sequence[str] = KINDS,
    ) -> Reply:
        """Keep calls of these kinds going; return how many were accepted and refused, by kind.

        Each of those in flight has a connection of its own. What is accepted and does not end is
        left open, and the next one is begun.
        """
        attack = _Attack(target, token, time.monotonic() + seconds)
        async with asyncio.TaskGroup() as running:
            for number in range(in_flight):
                running.create_task(attack.keep_going(kinds[number % len(kinds)]))
        return {"accepted": attack.accepted, "refused": attack.refused}


class _Attack:
    def __init__(self, target: str, token: str, end: float) -> None:
        self._target = target
        self._token = token
        self._end = end
        # Of its own: else the jobs that it may leave unfinished would be used up at once.
        self._user = f"abuser-{uuid.uuid4().hex}"
        self._large = itertools.cycle(_large_requests(self._user))
        # Made once: else the abuser takes much of the processors that it shares with the server.
        self._batch = _batch(self._user)
        self._unread = itertools.cycle(_unread_calls(self._user))
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    async def keep_going(self, kind: str) -> None:
        """Make calls of a kind, one after the other, until the time is over."""
        attempt = getattr(self, kind)
        opened: list[Any] = []
        made = await self._connected(opened, reads=kind != "unread")
        while time.monotonic() < self._end:
            try:
                await attempt(made)
                self.accepted[kind] += 1
                if kind == "unread":  # nothing more would come over this connection
                    made = await self._connected(opened, reads=False)
            except CallFailed:
                self.refused[kind] += 1
        for connection in opened:
            connection.close()

    async def _connected(self, opened: list[Any], *, reads: bool) -> Target:
        opened.append(await connect(self._target, reads=reads, token=self._token))
        return Target(opened[-1], self._user)

    async def create(self, made: Target) -> None:
        await made.create()

    async def create_batch(self, made: Target) -> None:
        await made.jobs.BatchCreateJobs(self._batch)

    async def list(self, made: Target) -> None:
        await made.jobs.ListJobs(_largest_list(self._user))

    async def watch(self, made: Target) -> None:
        request = WatchJobsRequest(user_id=self._user, view=JobView.JOB_VIEW_FULL)
        await _leave(made, WATCH_JOBS, [request])

    async def unread(self, made: Target) -> None:
        await _leave(made, *next(self._unread))

    async def large(self, made: Target) -> None:
        method, request = next(self._large)
        await getattr(made.jobs, method)(request)


class _LeftCall(Call):
    """A call that is left as it is once anything has come. `begun` is done then."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def received(self, data: bytes) -> None:  # noqa: ARG002
        if not self.begun.done():
            self.begun.set_result(None)

    def message(self, body: bytes) -> None:
        """Never called: what is received is not taken apart."""

    def ended(self, why: Exception | None, trailers: bytes) -> None:
        if not self.begun.done():
            self.begun.set_exception(why or CallFailed(f"no answer: {trailers!r}"))


async def _leave(made: Target, path: str, messages: Sequence[Any]) -> None:
    """Make a call and leave it open. Raises CallFailed if nothing comes."""
    call = _LeftCall()
    made.connection.begin(call, path)
    for message in messages:
        made.connection.send(call, message.SerializeToString(), last=path != WORK)
    await call.begun


def _largest_list(user_id: str) -> ListJobsRequest:
    return ListJobsRequest(user_id=user_id, page_size=LARGEST_PAGE, view=JobView.JOB_VIEW_FULL)


def _batch(user_id: str) -> BatchCreateJobsRequest:
    requests = list(itertools.islice(create_requests(user_id), BATCH))
    for request in requests:
        request.request_id = ""  # it is created again at each call
    return BatchCreateJobsRequest(user_id=user_id, requests=requests)


def _unread_calls(user_id: str) -> Iterator[tuple[str, list[Any]]]:
    yield LIST_JOBS, [_largest_list(user_id)]
    yield WATCH_JOBS, [WatchJobsRequest(user_id=user_id, view=JobView.JOB_VIEW_FULL)]
    hello = WorkHello(worker_id="abuser", job_types=[JOB_TYPE])
    news = WorkRequest(updates=[update(str(uuid.uuid4()), 1) for _ in range(UNREAD_UPDATES)])
    yield WORK, [WorkRequest(hello=hello), news]


def _large_requests(user_id: str) -> Iterator[tuple[str, Any]]:
    parameters = Struct()
    parameters["text"] = "x" * LARGE_STRUCT_BYTES
    one = CreateJobRequest(user_id=user_id, job_type=JOB_TYPE, parameters=parameters)
    yield "CreateJob", one
    # Four of them are just below the limit of a message, five above it.
    for several in (4, 5):
        yield "BatchCreateJobs", BatchCreateJobsRequest(user_id=user_id, requests=[one] * several)
