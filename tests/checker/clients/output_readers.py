"""Clients that read output: live, from server to server, and again from any place."""

import asyncio
import random
import time
from typing import Any

from jobledger.v1 import job_service_pb2 as pb
from tests.checker.clients.asking import Replicas
from tests.checker.clients.board import Board
from tests.checker.clients.output_writers import STREAMS
from tests.checker.clients.watchers import read_stream
from tests.checker.facts import piece
from tests.checker.history import (
    History,
    OutputPlace,
    OutputRead,
    OutputStream,
    OutputWatcher,
    Piece,
    Snapshot,
)

LAST_BYTES = (0, 1, 100, 5000)

FROM_THE_END = 0.2
"""How many of the first streams of a watcher begin with the last bytes."""

READ = 0.3
"""After how many of the streams of a watch something is read again."""

LONGEST_STAY = 60.0


class Unread(Exception):
    """The output of a job cannot be read: it was deleted, or nobody answers."""


async def read_outputs(
    name: str,
    replicas: Replicas,
    rng: random.Random,
    board: Board,
    history: History,
    go_back: float,
    stay: tuple[float, float],
) -> None:
    """Watch output of one job after the other, each to its end, until there are no more.

    Half of the streams are left after a time within `stay`.
    """
    count = 0
    while not board.work.is_set():
        jobs = rng.choice((board.written, board.written, board.fresh))
        if not jobs:
            await asyncio.sleep(0.02)
            continue
        job = jobs.popleft() if jobs is board.written else rng.choice(jobs)
        watcher = OutputWatcher(f"{name}-{count}", job.job_id, rng.choice(list(STREAMS)))
        count += 1
        history.output_watchers.append(watcher)
        await _watch_to_the_end(watcher, job, replicas, rng, history, go_back, stay)


async def _watch_to_the_end(
    watcher: OutputWatcher,
    job: Snapshot,
    replicas: Replicas,
    rng: random.Random,
    history: History,
    go_back: float,
    short: tuple[float, float],
) -> None:
    place = OutputPlace()
    if rng.random() < FROM_THE_END:
        place = OutputPlace(last_bytes=rng.choice(LAST_BYTES))
    while True:
        replica = replicas.choose()
        stream = OutputStream(place, opened=time.monotonic(), replica=replica)
        watcher.streams.append(stream)
        request = pb.WatchOutputRequest(
            job_id=job.job_id,
            user_id=job.user_id,
            stream=watcher.stream,
            after_offset=place.offset,
            last_bytes=place.last_bytes,
        )
        call = replicas.method(replica, "WatchOutput")(request)
        stay = rng.uniform(*short) if rng.random() < 0.5 else LONGEST_STAY
        await read_stream(call, _pieces, stream, replicas.refusals, stay=stay, take=_nothing)
        replicas.answered["WatchOutput"] += bool(stream.messages)
        if stream.end in ("OK", "NOT_FOUND"):
            return
        known = [each for one in watcher.streams for each in one.messages]
        if known:
            place = OutputPlace(_offset(known, rng, go_back))
            if rng.random() < READ:
                await _read_again(watcher, job, known, replicas, rng, history)
        if stream.end != "left":
            replicas.avoid(replica)
            await asyncio.sleep(rng.uniform(0.01, 0.1))


def _pieces(response: Any, at: float) -> list[Piece]:
    return [piece(response, at)]


async def _nothing(_response: Any) -> None:
    pass


def _offset(known: list[Piece], rng: random.Random, go_back: float) -> int:
    """Return the offset to resume after: the last one, or now and then any earlier one."""
    newest = known[-1].next_offset
    return rng.randint(0, newest) if rng.random() < go_back else newest


async def _read_again(
    watcher: OutputWatcher,
    job: Snapshot,
    known: list[Piece],
    replicas: Replicas,
    rng: random.Random,
    history: History,
) -> None:
    place = OutputPlace(rng.randint(0, known[-1].next_offset))
    if rng.random() < FROM_THE_END:
        place = OutputPlace(last_bytes=rng.choice(LAST_BYTES))
    try:
        read = await read_output(
            replicas, job.job_id, job.user_id, watcher.stream, place, rng.choice((0, 1, 700))
        )
    except Unread:
        return
    history.output_reads.append(read)


async def read_output(
    replicas: Replicas, job_id: str, user_id: str, stream: str, place: OutputPlace, max_bytes: int
) -> OutputRead:
    """Read output from a place on. Raises Unread."""
    request = pb.ReadOutputRequest(
        job_id=job_id,
        user_id=user_id,
        stream=stream,
        offset=place.offset,
        last_bytes=place.last_bytes,
        max_bytes=max_bytes,
    )
    answer = await replicas.ask("ReadOutput", request)
    if answer.response is None:
        raise Unread
    read = piece(answer.response, answer.answered)
    return OutputRead(job_id, stream, place, max_bytes, answer.sent, read)


async def read_whole(
    replicas: Replicas, job_id: str, user_id: str, stream: str, max_bytes: int = 0
) -> list[OutputRead]:
    """Read a stream from its beginning to its end. Raises Unread."""
    reads: list[OutputRead] = []
    place = OutputPlace()
    while not reads or not reads[-1].piece.up_to_date:
        reads.append(await read_output(replicas, job_id, user_id, stream, place, max_bytes))
        place = OutputPlace(reads[-1].piece.next_offset)
    return reads
