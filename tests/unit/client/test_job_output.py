"""What a handler writes, on its way to the service: when it is sent, how often, and how much waits.

In simulated time, so that what is said of milliseconds is exact.
"""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing

import grpc
import pytest

from jobledger import Asset, Completed, Job, JobStatus, Release
from jobledger.errors import (
    InvalidField,
    LeaseLost,
    LimitExceeded,
    MessageTooLarge,
    OutputGap,
    Unavailable,
)
from jobledger.v1.worker_service_pb2 import JobUpdate, UpdateResult
from jobledger.worker.job import Stop
from jobledger.worker.output import WRITER
from jobledger.worker.session import job_output
from jobledger.worker.session.job_output import JobOutput, OutputRoom
from jobledger.worker.session.job_updates import JobUpdates
from jobledger.worker.session.lease import Lease
from jobledger_world.chance import Chance
from jobledger_world.loop import WorldLoop

JOB = Job(id="j", job_type="render", status=JobStatus.PROCESSING, attempt=1)
KIB = 1024

UNAVAILABLE = Unavailable("no database", code=grpc.StatusCode.UNAVAILABLE)
TOO_FAST = LimitExceeded("too fast", code=grpc.StatusCode.RESOURCE_EXHAUSTED)
TOO_MUCH = MessageTooLarge("too much", code=grpc.StatusCode.RESOURCE_EXHAUSTED)
INVALID = InvalidField("no media type", code=grpc.StatusCode.INVALID_ARGUMENT)
LOST = LeaseLost("another attempt", code=grpc.StatusCode.ABORTED)


class Stream:
    """Stands in for a stream of Work: answers each update of output by the next of `answers`.

    `held` keeps the answers back while it is cleared.
    """

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[float, JobUpdate]] = []
        self.stored: dict[str, bytes] = {}
        self.writers: list[object] = []
        self.held = asyncio.Event()
        self.held.set()

    async def send(self, *updates: JobUpdate) -> UpdateResult:
        time = asyncio.get_running_loop().time()
        self.sent += [(time, update) for update in updates]
        if updates[0].WhichOneof("update") != "output":
            return UpdateResult(applied=True)
        answer = self.answers.pop(0) if self.answers else None
        await self.held.wait()
        if answer is not None:
            raise answer
        self.writers.append(WRITER.get())
        output = updates[0].output
        self.stored[output.stream] = self.stored.get(output.stream, b"") + output.data
        return UpdateResult(applied=True)

    @property
    def kinds(self) -> list[str | None]:
        return [update.WhichOneof("update") for _, update in self.sent]

    @property
    def appends(self) -> list[tuple[str, int, int]]:
        """The stream, number and size of each append that was sent."""
        outputs = [update.output for _, update in self.sent if update.HasField("output")]
        return [(each.stream, each.number, len(each.data)) for each in outputs]

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.sent]


class Session:
    """The session of one job, by the event loop's time."""

    def __init__(self, *answers: Exception | None, room: OutputRoom | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.stream = Stream(*answers)
        self.lost: list[Stop] = []
        lease = Lease(60.0, loop.time(), clock=loop.time)
        lose = lambda *why: self.lost.append(why[0])  # noqa: E731
        self.output = JobOutput(
            JOB,
            lease,
            self.stream,
            room or OutputRoom(),
            spawn=loop.create_task,
            on_lost=lose,
        )
        self.updates = JobUpdates(JOB, lease, self.stream, self.output, on_lost=lose)


def simulated(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        with closing(WorldLoop(Chance(1))) as loop:
            loop.run_until_complete(test())

    del run.__wrapped__  # pytest would see an async function
    return run


# --- when it is sent -------------------------------------------------------------------------


@simulated
async def test_what_is_written_soon_after_each_other_is_one_append():
    session = Session()
    begun = asyncio.get_running_loop().time()
    for word in (b"once ", b"upon ", b"a ", b"time"):
        session.output.add("", word)
        await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    assert session.stream.appends == [("", 1, 16)]
    assert session.stream.times == [pytest.approx(begun + 0.05)]
    assert session.stream.stored == {"": b"once upon a time"}


@simulated
async def test_16_kib_are_sent_at_once():
    session = Session()
    begun = asyncio.get_running_loop().time()
    session.output.add("", b"x" * 10 * KIB)
    await asyncio.sleep(0.01)
    session.output.add("log", b"x" * 6 * KIB)
    await asyncio.sleep(0.02)
    assert session.stream.times == [pytest.approx(begun + 0.01)] * 2


@simulated
async def test_an_append_has_at_most_64_kib_and_follows_the_answer_to_the_one_before():
    session = Session()
    session.stream.held.clear()
    session.output.add("", b"x" * 150 * KIB)
    await asyncio.sleep(1)
    assert session.stream.appends == [("", 1, 64 * KIB)]
    session.stream.held.set()
    await asyncio.sleep(0.001)
    assert session.stream.appends == [("", 1, 64 * KIB), ("", 2, 64 * KIB), ("", 3, 22 * KIB)]


@simulated
async def test_the_content_type_of_a_stream_is_the_one_that_it_began_with():
    session = Session()
    for content_type in ("text/csv", ""):
        session.output.add("data", b"a,b\n", content_type)
        await session.output.settle(1)
    types = [update.output.content_type for _, update in session.stream.sent]
    assert types == ["text/csv", "text/csv"]


@simulated
async def test_what_is_logged_while_output_is_sent_is_no_output_of_the_job():
    session = Session()
    WRITER.set(session)  # as in the handler
    session.output.add("", b"x")
    assert await session.output.settle(1)
    assert session.stream.writers == [None]


# --- in order with other updates -------------------------------------------------------------


@simulated
async def test_a_report_an_asset_and_the_end_come_after_what_was_written_before_them():
    session = Session(UNAVAILABLE, None, UNAVAILABLE, None, TOO_FAST)
    renewing = asyncio.create_task(session.updates.renew_lease())
    session.output.add("", b"one")
    session.updates.report(50, None)
    await session.updates.deliver()
    session.output.add("", b"two")
    await session.updates.link_asset(Asset("image/png", url="https://example.com/a.png"))
    session.output.add("", b"three")
    renewing.cancel()
    await session.updates.send_outcome(Completed())
    assert session.stream.kinds == [
        *("output", "output", "progress"),
        *("output", "output", "asset"),
        *("output", "output", "finish"),
    ]
    assert session.stream.stored == {"": b"onetwothree"}


@simulated
async def test_the_lease_is_renewed_while_a_report_waits_for_output():
    session = Session()
    session.stream.held.clear()
    renewing = asyncio.create_task(session.updates.renew_lease())
    session.output.add("", b"one")
    session.updates.report(50, None)
    await asyncio.sleep(50)
    renewals = [update.progress for _, update in session.stream.sent if update.HasField("progress")]
    assert len(renewals) >= 2
    assert not any(each.HasField("progress") for each in renewals)
    session.stream.held.set()
    assert await session.updates.deliver()
    assert session.stream.sent[-1][1].progress.progress == 50
    assert session.lost == []
    renewing.cancel()


# --- what is sent again, and what is not -----------------------------------------------------


@simulated
async def test_an_append_is_sent_again_with_its_number_and_before_later_ones():
    session = Session(UNAVAILABLE, TOO_FAST)
    session.output.add("", b"first")
    await asyncio.sleep(0.051)
    session.output.add("", b"second")
    assert await session.output.settle(10)
    assert session.stream.appends == [("", 1, 5), ("", 1, 5), ("", 1, 5), ("", 2, 6)]
    assert session.stream.stored == {"": b"firstsecond"}


@simulated
async def test_a_stream_goes_on_where_a_restored_database_has_less_of_it():
    gap = OutputGap("gap", code=grpc.StatusCode.ABORTED, metadata={"number": "2"})
    session = Session(None, None, gap)
    for data in (b"1", b"2", b"3", b"4"):
        session.output.add("", data)
        assert await session.output.settle(10)
    assert [number for _, number, _ in session.stream.appends] == [1, 2, 3, 2, 3]


@pytest.mark.parametrize("refusal", [TOO_MUCH, INVALID])
def test_a_refused_stream_ends_with_one_warning_and_other_streams_go_on(refusal, caplog):
    @simulated
    async def run() -> None:
        session = Session(refusal)
        for _ in range(3):
            session.output.add("", b"x" * 100 * KIB)
            assert await session.output.settle(1)
        session.output.add("log", b"line")
        assert await session.output.deliver("log")
        with pytest.raises(type(refusal)):
            await session.output.deliver("")
        assert session.stream.appends == [("", 1, 64 * KIB), ("log", 1, 4)]
        assert session.lost == []

    run()
    assert len(caplog.records) == 1
    assert f"its output in stream '' is not stored from here on: {refusal}" in caplog.text


def test_a_ninth_stream_is_refused_without_asking_the_service(caplog):
    @simulated
    async def run() -> None:
        session = Session()
        for number in range(20):
            session.output.add(f"s{number}", b"x")
        assert await session.output.settle(1)
        assert sorted(session.stream.stored) == [f"s{number}" for number in range(8)]
        with pytest.raises(MessageTooLarge):
            await session.output.deliver("s19")

    run()
    assert caplog.text.count("at most 8 streams") == 1


@simulated
async def test_a_job_that_is_lost_keeps_nothing_and_what_is_written_later_is_forgotten():
    room = OutputRoom()
    session = Session(LOST, room=room)
    session.output.add("", b"x" * 200 * KIB)
    await asyncio.sleep(0.01)
    assert session.lost == [Stop.LOST]
    assert session.output.add("", b"later") == 5
    await asyncio.sleep(1)
    assert len(session.stream.sent) == 1
    assert room.take(2**40) == job_output.MAX_WORKER_WAITING


# --- the end ---------------------------------------------------------------------------------


@simulated
async def test_the_end_waits_for_output_as_long_as_the_service_is_away():
    session = Session(*[UNAVAILABLE] * 200)
    session.output.add("", b"last words")
    await session.updates.send_outcome(Release())
    assert asyncio.get_running_loop().time() > 100
    assert session.stream.stored == {"": b"last words"}
    assert session.stream.kinds[-1] == "release"


@pytest.mark.parametrize(("outcome", "seconds"), [(Completed(), 60), (Release(), 2)])
def test_the_end_waits_only_so_long_for_output_that_is_refused_for_now(outcome, seconds, caplog):
    @simulated
    async def run() -> None:
        session = Session(*[TOO_FAST] * 1000)
        begun = asyncio.get_running_loop().time()
        session.output.add("", b"last words")
        await session.updates.send_outcome(outcome)
        assert seconds - 3 <= asyncio.get_running_loop().time() - begun <= seconds
        assert session.stream.stored == {}
        assert session.stream.kinds[-1] in ("finish", "release")

    run()
    assert "is not stored from here on: too fast" in caplog.text


# --- how much waits --------------------------------------------------------------------------


@simulated
async def test_256_kib_of_a_job_wait_and_then_its_handler_does():
    session = Session()
    session.stream.held.clear()
    assert session.output.add("", b"x" * 300 * KIB) == 256 * KIB
    assert session.output.add("log", b"x") == 0
    room = asyncio.create_task(session.output.room())
    await asyncio.sleep(0.5)
    assert not room.done()
    session.stream.held.set()
    await asyncio.sleep(0.1)
    assert room.done()
    assert session.output.add("log", b"x") == 1


@simulated
async def test_a_wait_for_room_ends_after_a_second_so_that_a_handler_can_be_stopped():
    session = Session()
    session.stream.held.clear()
    session.output.add("", b"x" * 300 * KIB)
    begun = asyncio.get_running_loop().time()
    await session.output.room()
    assert asyncio.get_running_loop().time() - begun == pytest.approx(1)


def test_what_waits_of_all_jobs_is_bounded(monkeypatch):
    monkeypatch.setattr(job_output, "MAX_WORKER_WAITING", 100)

    @simulated
    async def run() -> None:
        room = OutputRoom()
        one, other = Session(room=room), Session(room=room)
        one.stream.held.clear()
        assert one.output.add("", b"x" * 80) == 80
        assert other.output.add("", b"x" * 80) == 20
        assert other.output.add("", b"x" * 60) == 0
        waiting = asyncio.create_task(other.output.room())
        await asyncio.sleep(0)
        one.output.close()
        await asyncio.sleep(0.001)
        assert waiting.done()
        assert other.output.add("", b"x" * 60) == 60
        other.output.close()
        assert room.take(1000) == 100

    run()


@simulated
async def test_output_says_where_something_was_dropped():
    session = Session()
    session.output.add("", b"before\n")
    session.output.drop("", 100)
    session.output.drop("", 23)
    session.output.add("", b"after\n")
    await session.output.settle(1)
    assert session.stream.stored[""] == (
        b"before\n[123 bytes are missing here: too much was written]\nafter\n"
    )


async def test_threads_write_at_once_and_lose_nothing():
    session = Session()

    def write(name: str) -> None:
        for number in range(500):
            data = f"{name} {number}\n".encode()
            while data := data[session.output.add(name, data) :]:
                session.output.wait_for_room()

    threads = [threading.Thread(target=write, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert await session.output.settle(10)
    for name in ("t0", "t1", "t2", "t3"):
        expected = "".join(f"{name} {number}\n" for number in range(500)).encode()
        assert session.stream.stored[name] == expected


async def test_the_event_loop_never_waits_for_room_as_it_would_wait_for_itself():
    session = Session()
    session.stream.held.clear()
    session.output.add("", b"x" * 300 * KIB)
    assert not session.output.wait_for_room()
    session.output.close()
