"""What is sent of a job, and when."""

import asyncio
from contextlib import asynccontextmanager, closing

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo

from jobledger import Asset, Completed, DeadlineExceeded, Failed, Job, JobStatus, Release
from jobledger.errors import (
    IllegalTransition,
    InvalidField,
    JobNotFound,
    JobTerminal,
    LeaseLost,
    LimitExceeded,
    Unavailable,
)
from jobledger.v1.worker_service_pb2 import UpdateResult
from jobledger.worker.job import Stop
from jobledger.worker.session.job_output import JobOutput, OutputRoom
from jobledger.worker.session.job_updates import JobUpdates
from jobledger.worker.session.lease import Lease
from jobledger_world.chance import Chance
from jobledger_world.loop import WorldLoop

JOB = Job(id="j", job_type="render", status=JobStatus.PROCESSING, attempt=1)
ASSET = Asset("image/png", url="https://example.com/a.png")
COMPLETED = JobStatus.COMPLETED.to_proto()
FAILED = JobStatus.FAILED.to_proto()

UNAVAILABLE = Unavailable("no database", code=grpc.StatusCode.UNAVAILABLE)
OVERLOADED = LimitExceeded("too much", code=grpc.StatusCode.RESOURCE_EXHAUSTED)
INVALID = InvalidField("too long", code=grpc.StatusCode.INVALID_ARGUMENT)
LOST = LeaseLost("another attempt", code=grpc.StatusCode.ABORTED)


class Stream:
    """Stands in for a stream of Work.

    Each message is answered by the next of `answers`: an error, or a result; then by results.
    None is never answered.
    """

    def __init__(self, *answers):
        self.answers = list(answers)
        self.messages = []
        self._sent = asyncio.Condition()

    async def send(self, *updates):
        self.messages.append(updates)
        async with self._sent:
            self._sent.notify_all()
        answer = self.answers.pop(0) if self.answers else UpdateResult(applied=True)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sent(self, count):
        async with self._sent:
            await self._sent.wait_for(lambda: len(self.messages) >= count)

    @property
    def reports(self):
        return [each.progress.progress for (each,) in self.messages]


class Sent:
    """The updates of one job, by a clock that stands still unless a test moves it on."""

    def __init__(self, stream, clock, duration=60.0):
        self.stream = stream
        self.lost = []
        self.lease = Lease(duration, clock(), clock=clock)
        lose = lambda *why: self.lost.append(why[0])  # noqa: E731
        output = JobOutput(
            JOB, self.lease, stream, OutputRoom(), spawn=asyncio.create_task, on_lost=lose
        )
        self.updates = JobUpdates(JOB, self.lease, stream, output, on_lost=lose)

    @asynccontextmanager
    async def renewing(self):
        renewing = asyncio.create_task(self.updates.renew_lease())
        try:
            yield self.updates
        finally:
            renewing.cancel()
            await asyncio.wait({renewing})


# --- reports ---------------------------------------------------------------------------------


async def test_a_report_is_sent_at_once_and_of_those_soon_after_it_the_newest(clock):
    stream = Stream()
    async with Sent(stream, clock).renewing() as updates:
        updates.report(1, None)
        await stream.sent(1)
        for percent in range(2, 50):
            updates.report(percent, None)
            await asyncio.sleep(0)
        assert stream.reports == [1]
        clock.now += 0.1
        updates.report(50, None)
        await stream.sent(2)
    assert stream.reports == [1, 50]


async def test_a_report_that_is_waited_for_is_sent_at_once_and_committed(clock):
    stream = Stream()
    async with Sent(stream, clock).renewing() as updates:
        for percent in range(10):
            updates.report(percent, None)
            assert await updates.deliver()
    assert stream.reports == list(range(10))


async def test_a_report_that_is_waited_for_is_sent_until_it_is_accepted():
    stream = Stream(UNAVAILABLE, OVERLOADED)
    async with Sent(stream, asyncio.get_running_loop().time).renewing() as updates:
        updates.report(7, None)
        assert [await updates.deliver() for _ in range(3)] == [False, False, True]
    assert stream.reports == [7, 7, 7]


async def test_a_refused_report_is_raised_where_it_is_waited_for_and_not_sent_again(clock):
    stream = Stream(INVALID)
    sent = Sent(stream, clock)
    async with sent.renewing() as updates:
        updates.report(1, "refused")
        with pytest.raises(InvalidField):
            await updates.deliver()
        clock.now += 5
        updates.report(2, None)
        await stream.sent(2)
    assert [each.progress.progress_message for (each,) in stream.messages] == ["refused", ""]
    assert sent.lost == []


async def test_a_checkpoint_is_sent_though_newer_reports_have_none(clock):
    stream = Stream()
    async with Sent(stream, clock).renewing() as updates:
        updates.report(1, None)
        await stream.sent(1)
        updates.report(2, None, {"frame": 2})
        for percent in range(3, 50):
            updates.report(percent, None)
            await asyncio.sleep(0)
        assert await updates.deliver()
    (_,), (last,) = stream.messages
    assert (last.progress.progress, last.progress.checkpoint["frame"]) == (49, 2)


async def test_reports_are_numbered_and_renewals_are_not(clock):
    stream = Stream()
    sent = Sent(stream, clock)
    async with sent.renewing() as updates:
        await updates.ask()
        for percent in (1, 2):
            updates.report(percent, None)
            await updates.deliver()
    sent.updates.report(3, None)
    stream.answers = [UNAVAILABLE]
    await sent.updates.send_outcome(Completed())
    numbers = [message[0].progress.report_number for message in stream.messages]
    # The last one was sent again as it was.
    assert numbers == [0, 1, 2, 3, 3]


async def test_a_message_is_made_valid(clock):
    stream = Stream()
    async with Sent(stream, clock).renewing() as updates:
        updates.report(1, "a\0b\ud800" + "x" * 600)
        await updates.deliver()
    ((update,),) = stream.messages
    message = update.progress.progress_message
    assert len(message) == 512
    assert message.startswith("a\N{REPLACEMENT CHARACTER}b?x")


async def test_asking_waits_for_one_answer_if_the_last_is_not_new(clock):
    stream = Stream()
    async with Sent(stream, clock).renewing() as updates:
        for _ in range(10):
            await updates.ask()
        assert len(stream.messages) == 1
        clock.now += 0.1
        await updates.ask()
    assert len(stream.messages) == 2


async def test_asking_does_not_wait_after_a_failure(clock):
    later = RetryInfo(retry_delay=Duration(seconds=1))
    code = grpc.StatusCode.UNAVAILABLE
    stream = Stream(Unavailable("no database", code=code, details=[later]))
    async with Sent(stream, clock).renewing() as updates:
        await updates.ask()
        clock.now += 0.5
        with pytest.raises(StopIteration):  # it returns before it waits for anything
            updates.ask().send(None)
    assert len(stream.messages) == 1


# --- the lease -------------------------------------------------------------------------------


async def test_a_renewal_counts_from_when_it_was_sent_however_late_its_answer_is(clock):
    class Slow(Stream):
        async def send(self, *updates):
            clock.now += 10  # until it is answered
            return await super().send(*updates)

    sent = Sent(Slow(), clock)
    begun = clock.now
    async with sent.renewing() as updates:
        updates.report(1, None)
        assert await updates.deliver()
    assert begun < sent.lease.deadline <= begun + 60


def test_a_lease_is_renewed_where_nothing_is_reported():
    loop = WorldLoop(Chance(1))  # its time is simulated: no other process can make a renewal late

    async def renew():
        stream = Stream()
        sent = Sent(stream, loop.time)
        async with sent.renewing():
            await stream.sent(4)
        assert sent.lost == []
        assert set(stream.reports) == {0}
        assert 4 * 18 <= loop.time() <= 4 * 20  # each after a third of the lease, or sooner

    with closing(loop):
        loop.run_until_complete(renew())


async def test_a_report_on_a_terminal_job_loses_it(clock):
    sent = Sent(Stream(UpdateResult(applied=False)), clock)
    sent.updates.report(1, None)
    await sent.updates.renew_lease()
    assert sent.lost == [Stop.LOST]


async def test_a_job_whose_lease_is_not_renewed_in_time_has_expired():
    sent = Sent(Stream(None), asyncio.get_running_loop().time, duration=0.2)
    await sent.updates.renew_lease()
    assert sent.lost == [Stop.EXPIRED]


@pytest.mark.parametrize("kind", [LeaseLost, JobTerminal, JobNotFound, IllegalTransition])
async def test_a_refusal_of_the_attempt_loses_the_job(clock, kind):
    sent = Sent(Stream(kind("gone", code=grpc.StatusCode.ABORTED)), clock)
    sent.updates.report(1, None)
    await sent.updates.renew_lease()
    assert sent.lost == [Stop.LOST]


# --- assets ----------------------------------------------------------------------------------


async def test_an_asset_is_sent_until_it_is_accepted_with_one_request_id(clock):
    result = UpdateResult(applied=True, asset=ASSET.to_proto())
    sent = Sent(Stream(UNAVAILABLE, OVERLOADED, result), clock)
    assert await sent.updates.link_asset(ASSET) == ASSET
    ids = [each.asset.request_id for (each,) in sent.stream.messages]
    assert len(ids) == 3
    assert len(set(ids)) == 1


async def test_an_asset_that_is_not_answered_for_as_long_as_a_lease_lasts_is_an_error(clock):
    sent = Sent(Stream(None), clock, duration=0.05)
    with pytest.raises(DeadlineExceeded):
        await sent.updates.link_asset(ASSET)


async def test_an_asset_that_comes_too_late_loses_the_job_and_stops_the_handler(clock):
    sent = Sent(Stream(LOST), clock)
    with pytest.raises(asyncio.CancelledError):
        await sent.updates.link_asset(ASSET)
    assert sent.lost == [Stop.LOST]


# --- the outcome -----------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "kind"), [(Completed(), "finish"), (Release(), "release")])
async def test_the_last_report_is_sent_with_the_outcome_if_it_was_not_before(clock, outcome, kind):
    sent = Sent(Stream(), clock)
    sent.updates.report(75, "encoded")
    await sent.updates.send_outcome(outcome)
    ((report, end),) = sent.stream.messages
    assert (report.progress.progress, report.progress.progress_message) == (75, "encoded")
    assert end.WhichOneof("update") == kind


@pytest.mark.parametrize("outcome", [Failed("no", retryable=True), Release(after=60)])
async def test_the_newest_checkpoint_is_sent_before_the_outcome(clock, outcome):
    sent = Sent(Stream(), clock)
    sent.updates.report(None, None, {"frame": 1})
    sent.updates.report(None, None, {"frame": 2})
    await sent.updates.send_outcome(outcome)
    ((report, _),) = sent.stream.messages
    assert report.progress.checkpoint["frame"] == 2


async def test_an_outcome_says_whether_and_when_the_job_goes_on(clock):
    sent = Sent(Stream(), clock)
    for outcome in (
        Failed("no"),
        Failed("no", retryable=True),
        Failed("no", retryable=True, retry_after=1.5),
        Release(),
        Release(after=60),
    ):
        await sent.updates.send_outcome(outcome)
    updates = [update for (update,) in sent.stream.messages]
    finishes, releases = (
        [each.finish for each in updates[:3]],
        [each.release for each in updates[3:]],
    )
    assert [each.retryable for each in finishes] == [False, True, True]
    assert [each.HasField("retry_delay") for each in finishes] == [False, False, True]
    assert finishes[2].retry_delay.ToTimedelta().total_seconds() == 1.5
    assert [each.HasField("delay") for each in releases] == [False, True]
    assert releases[1].delay.seconds == 60


@pytest.mark.parametrize("outcome", [Completed(), Release()])
async def test_an_outcome_is_sent_until_an_outage_is_over_also_after_the_lease(outcome):
    time = asyncio.get_running_loop().time
    sent = Sent(Stream(*[UNAVAILABLE] * 100), time, duration=0.05)
    await sent.updates.send_outcome(outcome)
    assert sent.lease.over
    assert len(sent.stream.messages) == 101


async def test_an_outcome_that_is_refused_for_as_long_as_a_lease_lasts_is_given_up(caplog):
    time = asyncio.get_running_loop().time
    sent = Sent(Stream(*[OVERLOADED] * 100), time, duration=0.05)
    await sent.updates.send_outcome(Completed())
    assert "could not be finished: too much" in caplog.text


async def test_an_outcome_that_is_refused_makes_the_job_failed(clock):
    sent = Sent(Stream(INVALID), clock)
    await sent.updates.send_outcome(Completed({"a": 1}))
    error = sent.stream.messages[1][0].finish.error
    assert (error.reason, error.message) == (
        "INVALID_ARGUMENT",
        "the outcome was refused: too long",
    )


async def test_an_outcome_that_was_changed_after_it_was_made_makes_the_job_failed(clock):
    result = {}
    outcome = Completed(result)
    result["late"] = object()
    sent = Sent(Stream(), clock)
    await sent.updates.send_outcome(outcome)
    ((update,),) = sent.stream.messages
    assert update.finish.status == FAILED
    assert "result.late: object" in update.finish.error.message


async def test_an_outcome_that_comes_too_late_is_discarded(clock):
    sent = Sent(Stream(LOST), clock)
    await sent.updates.send_outcome(Failed("no"))
    assert len(sent.stream.messages) == 1
