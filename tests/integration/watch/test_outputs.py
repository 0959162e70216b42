"""The buffers of output: shared, bounded, without a gap, and read from the table where they end."""

import asyncio
from typing import Any

import pytest

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import AppendOutput, ChangeStatus, Delete
from jobledger_server.domain.errors import JobNotFound
from jobledger_server.domain.job import Job, JobId, JobStatus
from jobledger_server.domain.output import OutputPiece
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import FeedHead, Store
from jobledger_server.tuning import Tuning
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.output_buffer import MAX_BYTES, OutputBuffer
from jobledger_server.watch.outputs import OutputHub
from tests.support.ledger_calls import apply, claim, claim_jobs, created

JOB = JobId("01900000-0000-7000-8000-000000000001")


def piece(start: int, data: bytes, attempt: int = 1) -> OutputPiece:
    return OutputPiece(JOB, "", start, attempt, 0, data)


def test_a_buffer_has_what_follows_and_begins_anew_after_a_gap() -> None:
    buffer = OutputBuffer()
    assert not buffer.has(0)
    buffer.begin(10)
    assert (buffer.has(10), buffer.has(9)) == (True, False)
    assert buffer.add(piece(10, b"abc"))
    assert not buffer.add(piece(10, b"abc"))  # from the commit, and again from the table
    assert buffer.add(piece(13, b"de"))
    assert [each.data for each in buffer.after(10)] == [b"abc", b"de"]
    assert [each.data for each in buffer.after(13)] == [b"de"]
    assert (buffer.first, buffer.end, buffer.bytes) == (10, 15, 5)
    # Another server has appended what is not known here yet.
    assert buffer.add(piece(20, b"f"))
    assert (buffer.has(15), buffer.first, buffer.end, buffer.bytes) == (False, 20, 21, 1)


def test_a_buffer_keeps_so_many_bytes_and_a_piece_more() -> None:
    buffer = OutputBuffer()
    for number in range(40):
        buffer.add(piece(number * 10_000, b"x" * 10_000))
        assert buffer.bytes < MAX_BYTES + 10_000
    assert buffer.end == 400_000
    assert buffer.first == 400_000 - buffer.bytes
    assert buffer.bytes >= MAX_BYTES


class Hubs:
    """An output hub on a store, with its own tuning."""

    def __init__(self, store: Store, tuning: Tuning) -> None:
        changes = ChangeBuffer(FeedHead("e", 0).seq, tuning=tuning)
        self.hub = WatchHub(changes, lambda: None, max_watches=100)
        self.outputs = OutputHub(store, self.hub, tuning)


async def running(ledger: Ledger) -> Job:
    await created(ledger)
    (job,) = await claim_jobs(ledger, claim())
    return job


async def append(ledger: Ledger, job: Job, *data: bytes, stream: str = "") -> None:
    for each in data:
        await apply(ledger, AppendOutput(job_id=job.id, attempt=1, data=each, stream=stream))


@pytest.mark.parametrize("tuning", [Tuning(output_buffer_bytes=1000)])
async def test_all_buffers_together_are_bounded(ledger: Ledger, store: Store, tuning: Any) -> None:
    hubs = Hubs(store, tuning)
    job = await running(ledger)
    names = [str(number) for number in range(8)]
    with hubs.outputs.subscribe(job.id, names[0], SERVICE) as first:
        watches = [hubs.outputs.subscribe(job.id, name, SERVICE) for name in names[1:]]
        others = [watch.__enter__() for watch in watches]
        for watch in (first, *others):
            watch.buffer.begin(0)
        for number in range(50):
            for name in names:
                hubs.outputs.written([OutputPiece(job.id, name, 9 * number, 1, 0, b"x" * 9)])
                assert hubs.outputs.buffered_bytes <= 1000
                assert hubs.outputs.buffered_bytes == sum(
                    watch.buffer.bytes for watch in (first, *others)
                )
        assert {watch.buffer.end for watch in (first, *others)} == {450}
        for watch in watches:
            watch.__exit__(None, None, None)
    assert hubs.outputs.buffered_bytes == 0
    hubs.outputs.written([OutputPiece(job.id, names[0], 450, 1, 0, b"x")])
    assert hubs.outputs.buffered_bytes == 0  # nobody watches


@pytest.mark.parametrize("tuning", [Tuning(output_page=2, polled_streams=1)])
async def test_what_others_append_is_read_page_by_page_once_it_is_heard_of(
    ledger: Ledger, store: Store, tuning: Any
) -> None:
    hubs = Hubs(store, tuning)
    job, other = await running(ledger), await running(ledger)
    with (
        hubs.outputs.subscribe(job.id, "", SERVICE) as watch,
        hubs.outputs.subscribe(job.id, "log", SERVICE) as log,
    ):
        watch.buffer.begin(0)
        log.buffer.begin(0)
        await append(ledger, job, *(str(number).encode() for number in range(7)))
        await append(ledger, job, b"one", stream="log")
        task = asyncio.create_task(hubs.outputs.run(poll_seconds=3600))
        hubs.outputs.heard([other.id])  # nobody watches it
        for end in (2, 4, 6, 7):
            hubs.outputs.heard([job.id])
            async with asyncio.timeout(20):
                while watch.buffer.end != end:
                    await watch.wait(1)
        assert b"".join(each.data for each in watch.buffer.after(0)) == b"0123456"
        assert log.buffer.end == 3
        await append(ledger, job, b"8")
        hubs.outputs.heard(None)
        async with asyncio.timeout(20):
            while watch.buffer.end != 8:
                await watch.wait(1)
        task.cancel()
    assert hubs.outputs.delivered == {"commit": 0, "table": 9}


async def test_an_ended_stream_is_final_once_the_table_has_no_more(
    ledger: Ledger, store: Store, tuning: Tuning
) -> None:
    hubs = Hubs(store, tuning)
    job = await running(ledger)
    await append(ledger, job, b"one", b"two")
    with hubs.outputs.subscribe(job.id, "", SERVICE) as watch:
        watch.buffer.begin(3)
        end = ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, attempt=1)
        ended: Any = await ledger.submit([end], SERVICE)
        watch.read(ended[0][0].job)
        assert watch.terminal
        await hubs.outputs.finish(watch.stream)
        assert (watch.buffer.end, watch.buffer.final) == (6, None)
        await hubs.outputs.finish(watch.stream)
        assert watch.buffer.final == 6


async def test_a_stream_whose_job_is_deleted_before_it_was_read_is_not_said_to_be_whole(
    ledger: Ledger, store: Store, tuning: Tuning
) -> None:
    """What another server appended is not known here when the end and the deletion are."""
    hubs = Hubs(store, tuning)
    job = await running(ledger)
    await append(ledger, job, b"one", b"two")
    with hubs.outputs.subscribe(job.id, "", SERVICE) as watch:
        watch.buffer.begin(3)
        end = ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, attempt=1)
        ended: Any = await ledger.submit([end], SERVICE)
        watch.read(ended[0][0].job)
        await apply(ledger, Delete(job_id=job.id, user_id=job.user_id))
        with pytest.raises(JobNotFound):
            await hubs.outputs.finish(watch.stream)
        assert watch.buffer.final is None
