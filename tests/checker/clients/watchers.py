"""Clients that watch, and write down every message of every stream."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import grpc

from jobledger.v1 import job_service_pb2 as pb
from tests.checker.clients.asking import Replicas, info_of
from tests.checker.clients.board import Board
from tests.checker.facts import watch_job_messages, watch_jobs_messages
from tests.checker.history import History, OutputStream, Place, Snapshot, Stream, Watcher

SILENCE_SECONDS = 3.0
"""Three heartbeats: who has heard nothing for so long asks another replica."""

TOKEN_REFUSED = ("INVALID_ARGUMENT", "OUT_OF_RANGE")

Read = Callable[[Any, float], list[Any]]


async def read_stream(
    call: Any,
    read: Read,
    stream: Stream | OutputStream,
    refusals: Counter[str],
    *,
    stay: float,
    take: Callable[[Any], Any],
) -> str:
    """Read until the stream ends, stays silent, or has been read long enough.

    Returns:
        The token that came with the stream's end, if one did.
    """
    leave = time.monotonic() + stay
    try:
        while True:
            silent = time.monotonic() + SILENCE_SECONDS
            async with asyncio.timeout(max(0.0, min(leave, silent) - time.monotonic())):
                response = await call.read()
            if response is grpc.aio.EOF:
                stream.end = (await call.code()).name
                return ""
            stream.messages += read(response, time.monotonic())
            await take(response)
    except TimeoutError:
        stream.end = "left" if time.monotonic() >= leave else "silent"
    except grpc.aio.AioRpcError as error:
        info = info_of(error)
        reason = info.reason
        stream.end = error.code().name
        refusals[f"watching {stream.end} {reason}".rstrip()] += 1
        # Without a reason it is not the service's word but that of a broken connection.
        if stream.end in ("INTERNAL", "UNKNOWN") and not reason:
            stream.end = "UNAVAILABLE"
        return str(info.metadata["resume_token"])
    except asyncio.CancelledError:
        stream.end = "left"
        raise
    finally:
        stream.closed = time.monotonic()
        call.cancel()
    return ""


@dataclass(slots=True)
class JobsWatcher:
    """Watches many jobs, from stream to stream by resume tokens, until it is cancelled.

    With `stall` it stops reading that long after the share `stalls` of its messages, as long as
    there is work: with its stalls alone it would take longer than a run may last to receive 8,000
    changes, which a server has in its change buffer.
    """

    watcher: Watcher
    replicas: Replicas
    rng: random.Random
    board: Board
    stall: float = 0.0
    _: KW_ONLY
    stalls: float
    go_back: float
    start_over: float
    stay: tuple[float, float]
    _tokens: list[dict[int, str]] = field(default_factory=list)
    """Of each stream, by the number of the message that a token stands after: of several changes
    that came in one message, the last; and -1 of a stream that ended without one."""
    _root: int = 0
    """The number of the stream before which nothing counts any more."""

    async def run(self) -> None:
        while True:
            if self.start_over and self.rng.random() < self.start_over:
                self._root = len(self._tokens)
            place = self._place()
            replica = self.replicas.choose()
            stream = Stream(opened=time.monotonic(), replica=replica, after=place)
            self.watcher.streams.append(stream)
            tokens: dict[int, str] = {}
            self._tokens.append(tokens)

            async def take(
                response: Any, stream: Stream = stream, tokens: dict[int, str] = tokens
            ) -> None:
                tokens[len(stream.messages) - 1] = response.resume_token
                if self.stall and not self.board.work.is_set() and self.rng.random() < self.stalls:
                    await asyncio.sleep(self.stall)

            request = pb.WatchJobsRequest(
                user_id=self.watcher.user_id,
                job_types=sorted(self.watcher.job_types),
                view="JOB_VIEW_FULL" if self.watcher.full else "JOB_VIEW_UNSPECIFIED",
                resume_token=self._tokens[place.stream][place.message] if place else "",
            )
            call = self.replicas.method(replica, "WatchJobs")(request)
            stay = self.rng.uniform(*self.stay)
            if token := await read_stream(
                call, watch_jobs_messages, stream, self.replicas.refusals, stay=stay, take=take
            ):
                tokens[len(stream.messages) - 1] = token
            self.replicas.answered["WatchJobs"] += bool(stream.messages)
            if stream.end != "left":
                self.replicas.avoid(replica)
                await asyncio.sleep(self.rng.uniform(0.01, 0.1))
            if stream.end in TOKEN_REFUSED:
                self._root = len(self._tokens)

    def _place(self) -> Place | None:
        """Return the cursor to resume from: the last message, or now and then an older one."""
        for number in reversed(range(self._root, len(self._tokens))):
            if places := list(self._tokens[number]):
                back = self.rng.randrange(1, 20) if self.rng.random() < self.go_back else 1
                return Place(number, places[-min(back, len(places))])
            if after := self.watcher.streams[number].after:
                return after
        return None


async def watch_jobs_one_by_one(
    name: str,
    replicas: Replicas,
    rng: random.Random,
    board: Board,
    history: History,
    go_back: float,
    stay: tuple[float, float],
) -> None:
    """Watch one new job after the other, each to its end, until there are no more.

    Half of the streams are left after a time within `stay`.
    """
    count = 0
    while not board.work.is_set():
        if not board.fresh:
            await asyncio.sleep(0.02)
            continue
        job = board.fresh.popleft()
        full = rng.random() < 0.5
        watcher = Watcher(f"{name}-{count}", job.job_id, job.user_id, full=full)
        count += 1
        history.watchers.append(watcher)
        await _watch_to_the_end(watcher, job, replicas, rng, go_back, stay)
        board.close(job)


async def _watch_to_the_end(
    watcher: Watcher,
    job: Snapshot,
    replicas: Replicas,
    rng: random.Random,
    go_back: float,
    short: tuple[float, float],
) -> None:
    async def take(_response: Any) -> None:
        pass

    version = 0
    while True:
        replica = replicas.choose()
        stream = Stream(opened=time.monotonic(), replica=replica, after_version=version)
        watcher.streams.append(stream)
        request = pb.WatchJobRequest(
            job_id=job.job_id,
            user_id=job.user_id,
            after_version=version,
            view="JOB_VIEW_UNSPECIFIED" if watcher.full else "JOB_VIEW_BASIC",
        )
        call = replicas.method(replica, "WatchJob")(request)
        # Jobs are short: who stays as long as others do would never resume.
        stay = rng.uniform(*short) if rng.random() < 0.5 else 60.0
        await read_stream(call, watch_job_messages, stream, replicas.refusals, stay=stay, take=take)
        replicas.answered["WatchJob"] += bool(stream.messages)
        if stream.end in ("OK", "NOT_FOUND"):
            return
        version = _version(watcher, rng, go_back)
        if stream.end != "left":
            replicas.avoid(replica)
            await asyncio.sleep(rng.uniform(0.01, 0.1))


def _version(watcher: Watcher, rng: random.Random, go_back: float) -> int:
    """Return the version to resume after: the newest received, or now and then an older one."""
    versions = sorted({m.job.version for s in watcher.streams for m in s.messages if m.job})
    if not versions:
        return 0
    return rng.choice(versions) if rng.random() < go_back else versions[-1]
