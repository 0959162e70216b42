"""Both clients watch many jobs of the real server."""

import asyncio
import contextlib
import itertools
import logging
import sqlite3
import threading
from collections import Counter, defaultdict
from functools import partial

import pytest

from jobledger import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidToken,
    JobStatus,
    NewJob,
    Unavailable,
)

PROCESSING = JobStatus.PROCESSING
COMPLETED = JobStatus.COMPLETED
FAILED = JobStatus.FAILED


def listing(news):
    """Read a listing to its end."""
    jobs = {}
    for message in news:
        if message.synced:
            return jobs
        jobs[message.job.id] = message.job
    return None


def test_a_token_from_within_a_message_repeats_changes_and_skips_none(client):
    with client.watch_jobs() as news:
        listing(news)
        made = client.create_jobs([NewJob("render") for _ in range(20)])
        events = [next(news) for _ in made]
    assert [event.job for event in events] == made
    for number, event in enumerate(events, 1):
        with client.watch_jobs(resume_token=event.resume_token) as news:
            missed = list(itertools.takewhile(lambda each: not each.synced, news))
        # They came in one message, whose token is that of the last one.
        assert [each.job for each in missed] == (made if number < len(made) else [])


@pytest.mark.parametrize("spoil", [lambda token: "x" + token, lambda token: token])
def test_a_damaged_or_foreign_token_is_refused_or_reported_as_a_gap(client, spoil):
    job = client.create_job("render")
    with client.watch_jobs() as news:
        token = spoil(next(news).resume_token)
    with pytest.raises(InvalidToken):
        next(client.watch_jobs(resume_token=token, job_types=["render"]))
    gaps = []
    again = client.watch_jobs(resume_token=token, job_types=["render"], on_gap=gaps.append)
    with contextlib.closing(again) as news:
        assert listing(news) == {job.id: job}
    assert [type(gap) for gap in gaps] == [InvalidToken]


class Follower:
    """Follows all jobs of an owner, with either client, to the end of all of them."""

    def __init__(self, count):
        self.messages = []
        self._missing = count
        self._news = threading.Condition()

    def take(self, message):
        with self._news:
            self.messages.append(message)
            if message.job is not None and message.job.is_terminal and not message.deleted:
                self._missing -= 1
            self._news.notify_all()
            return self._missing == 0

    def wait_for(self, reached):
        with self._news:
            assert self._news.wait_for(lambda: reached(self.messages), timeout=60)

    def blocking(self, client):
        for message in client.watch_jobs():
            if self.take(message):
                return

    async def asynchronous(self, target):
        async with AsyncClient(target, user_id="ada") as client:
            async for message in client.watch_jobs():
                if self.take(message):
                    return


async def answered(call, *arguments):
    """Repeat a call until it is answered: a restart can take longer than the client's retries."""
    while True:
        with contextlib.suppress(Unavailable, DeadlineExceeded):
            return await call(*arguments)


async def work(client, job_id, steps):
    """Start and complete a job."""
    await answered(client.start_job, job_id)
    for progress in range(steps):
        await answered(partial(client.update_progress, job_id, progress, attempt=1))
    return await answered(partial(client.mark_completed, job_id, attempt=1))


def check(follower, done):
    """Every transition of every job once and in order, and no version twice."""
    steps, versions, last = defaultdict(list), defaultdict(list), {}
    for message in follower.messages:
        if message.job is not None:
            last[message.job.id] = message.job
            versions[message.job.id].append(message.job.version)
            steps[message.job.id] += [step.to_status for step in message.transitions]
    assert last == {job.id: job for job in done}
    assert dict(steps) == {job.id: [PROCESSING, COMPLETED] for job in done}
    assert all(seen == sorted(set(seen)) for seen in versions.values())
    assert sum(message.synced for message in follower.messages) == 1
    assert not any(message.heartbeat for message in follower.messages)


async def test_every_transition_is_yielded_once_although_the_server_is_killed(own_server):
    count = 40
    followers = [Follower(count), Follower(count)]
    with Client(own_server.target, user_id="ada") as blocking:
        async with (
            AsyncClient(own_server.target, user_id="ada") as client,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(asyncio.to_thread(followers[0].blocking, blocking))
            group.create_task(followers[1].asynchronous(own_server.target))
            for follower in followers:
                await asyncio.to_thread(
                    follower.wait_for, lambda messages: any(m.synced for m in messages)
                )
            done = []
            for kills in range(4):
                jobs = [await client.create_job("render") for _ in range(count // 4)]
                works = [
                    group.create_task(work(client, job.id, 10 + number))
                    for number, job in enumerate(jobs)
                ]
                if kills < 3:
                    await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.to_thread(own_server.restart)
                done += [await each for each in works]
    for follower in followers:
        check(follower, done)


async def test_streams_at_their_maximum_age_are_replaced_without_notice(start, caplog):
    """Many short streams, of the watch of all jobs and of a watch of each."""
    caplog.set_level(logging.DEBUG, "jobledger")
    app = await start(max_watch_age=0.2)
    count = 8
    follower, singles = Follower(count), []
    async with AsyncClient(app.address, user_id="ada") as client, asyncio.TaskGroup() as group:
        group.create_task(follower.asynchronous(app.address))
        await asyncio.to_thread(follower.wait_for, lambda messages: any(m.synced for m in messages))

        async def single(job_id):
            return [m async for m in client.watch(job_id, reconnect_timeout=0)]

        async def slowly(job_id):
            await client.start_job(job_id)
            for progress in range(8):
                await client.update_progress(job_id, progress, attempt=1)
                # Long enough for streams to reach their maximum age.
                await asyncio.sleep(0.2)
            return await client.mark_completed(job_id, attempt=1)

        jobs = [await client.create_job("render") for _ in range(count)]
        singles = [group.create_task(single(job.id)) for job in jobs]
        works = [group.create_task(slowly(job.id)) for job in jobs]
        done = [await each for each in works]
    check(follower, done)
    for messages in [each.result() for each in singles]:
        steps = [step.to_status for message in messages for step in message.transitions]
        assert steps == [PROCESSING, COMPLETED]
        versions = [message.job.version for message in messages]
        assert versions == sorted(set(versions))
    logged = Counter(r.message for r in caplog.records if r.name == "jobledger")
    assert set(logged) == {"the server ended the stream; reconnecting"}
    assert logged.total() > 2 * count


def test_a_restored_database_is_a_gap_followed_by_a_listing_of_its_jobs(own_server):
    with Client(own_server.target, user_id="ada") as client:
        kept = client.create_job("render")
        path = own_server.database.removeprefix("sqlite:///")
        with (
            contextlib.closing(sqlite3.connect(path)) as database,
            contextlib.closing(sqlite3.connect(f"{path}.backup")) as backup,
        ):
            database.backup(backup)
        gaps = []
        with client.watch_jobs(on_gap=gaps.append) as news:
            assert [*listing(news)] == [kept.id]
            client.create_job("render")
            assert next(news).job.version == 1
            own_server.kill()
            with (
                contextlib.closing(sqlite3.connect(f"{path}.backup")) as backup,
                contextlib.closing(sqlite3.connect(path)) as database,
            ):
                backup.backup(database)
            own_server.start()
            assert listing(news) == {kept.id: kept}
        assert [type(gap) for gap in gaps] == [InvalidToken]
