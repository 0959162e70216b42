"""Resuming at another replica than the one that gave the token, in the difficult cases."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.support.databases import several_servers
from tests.support.feed_events import Event, events
from tests.support.rpc_caller import Caller
from tests.support.server_process import ServerProcess


@asynccontextmanager
async def two_replicas(folder: Path, url: str) -> AsyncIterator[list[tuple[ServerProcess, Caller]]]:
    first, second = (ServerProcess(_made(folder / name), database=url) for name in ("a", "b"))
    async with (
        first,
        second,
        grpc.aio.insecure_channel(first.target) as one,
        grpc.aio.insecure_channel(second.target) as other,
    ):
        yield [(first, Caller(one)), (second, Caller(other))]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def read_until(stream: Any, job_id: str, version: int) -> list[Event]:
    told: list[Event] = []
    while (job_id, version) not in [(each.job.id, each.job.version) for each in told if each.job]:
        told += events(await stream.read())
    return told


def steps(told: list[Event]) -> list[int]:
    return [step.version for event in told for step in event.transitions]


@several_servers
async def test_a_watch_resumed_on_another_server_gets_each_transition_once(
    tmp_path: Path, database_url: str
) -> None:
    """Though one replica took the changes one by one, and the other all at once."""
    async with two_replicas(tmp_path, database_url) as ((_, here), (server, there)):
        watches = [here.WatchJobs(), there.WatchJobs()]
        for watch in watches:
            assert (await watch.read()).synced
        server.signal(signal.SIGSTOP)
        try:
            job = await here.running()
            await here.job()
            await here.UpdateProgress(job_id=job.id, progress=5)
        finally:
            server.signal(signal.SIGCONT)
        one_by_one, at_once = [await read_until(watch, job.id, 3) for watch in watches]
        assert len(one_by_one) == 4
        for told, elsewhere in ((one_by_one, there), (at_once, here)):
            assert steps(told) == [2]
            for count in range(1, len(told)):
                if token := told[count - 1].resume_token:
                    again = elsewhere.WatchJobs(resume_token=token)
                    rest = await read_until(again, job.id, 3)
                    assert steps(told[:count] + rest) == [2]


@several_servers
async def test_a_watch_that_missed_the_start_of_a_deleted_job_gets_only_the_deletion(
    tmp_path: Path, database_url: str
) -> None:
    """One replica was frozen and found the job deleted; the other has seen all of it."""
    async with two_replicas(tmp_path, database_url) as ((_, here), (server, there)):
        watch = there.WatchJobs()
        assert (await watch.read()).synced
        server.signal(signal.SIGSTOP)
        try:
            job = await here.running()
            others = [await here.job(parameters={"blob": "x" * 250_000}) for _ in range(5)]
            await here.UpdateProgress(job_id=job.id, progress=5)
            await here.MarkCompleted(job_id=job.id)
            await here.DeleteJob(job_id=job.id, user_id=job.user_id)
        finally:
            server.signal(signal.SIGCONT)
        first = await watch.read()  # no more of them fit
        assert [change.job for change in first.changes] == others[:4]
        again = here.WatchJobs(resume_token=first.resume_token)
        fifth, deletion = (await again.read()).changes
        assert (fifth.job, deletion.job.id, deletion.deleted) == (others[4], job.id, True)
