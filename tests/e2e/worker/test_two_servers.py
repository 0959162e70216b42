"""The library's worker at one of two servers over PostgreSQL, and who watches at the other one."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from jobledger import AsyncClient, JobStatus
from jobledger.worker import ClaimedJob, Worker
from jobledger_server.check.invariants import violations
from jobledger_server.sql.database import Database
from tests.e2e.worker.conftest import SECONDS, Running
from tests.support.databases import several_servers
from tests.support.server_process import ServerProcess

JOBS = 16
REPORTS = 3


@several_servers
async def test_each_end_of_a_job_that_reports_the_same_again_reaches_a_watcher_at_another_server(
    database_url: str, database: Database, tmp_path: Path, running: Running
) -> None:
    """A numbered report without news is written in one batch with the changes of other jobs."""
    async with AsyncExitStack() as stack:
        servers = []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            server = ServerProcess(tmp_path / name, database=database_url)
            servers.append(await stack.enter_async_context(server))
        working, watching = [
            await stack.enter_async_context(AsyncClient(server.target, user_id="ada"))
            for server in servers
        ]
        restarted = asyncio.Event()
        reported = asyncio.Semaphore(0)
        worker = Worker(working, concurrency=JOBS, lease=30)

        async def report(job: ClaimedJob) -> None:
            for number in range(REPORTS):
                if job.parameters["repeats"]:
                    await job.progress(50, "same", wait=True)
                else:
                    await job.progress(10 * job.attempt, f"report {number}", wait=True)

        @worker.handler("render")
        async def render(job: ClaimedJob) -> None:
            await report(job)
            reported.release()
            await restarted.wait()  # the server that comes then has read no job yet
            await report(job)

        jobs = [await working.create_job("render", {"repeats": n % 2}) for n in range(JOBS)]
        async with asyncio.timeout(SECONDS), watching.watch_jobs() as events:
            async for event in events:
                if event.synced:
                    break
            run = running(worker)
            for _ in jobs:
                await reported.acquire()
            await asyncio.to_thread(servers[0].restart)
            restarted.set()
            worker.stop()
            await run
            done = [await working.get_job(job.id) for job in jobs]
            assert {job.status for job in done} == {JobStatus.COMPLETED}
            # The feed is in the order of the commits: what does not come before this job is lost.
            last = await working.create_job("other")
            ended = set()
            async for event in events:
                assert event.job is not None
                if event.job.id == last.id:
                    break
                if event.job.status is JobStatus.COMPLETED:
                    ended.add(event.job.id)
            assert len(ended) == JOBS
        async with (
            asyncio.timeout(SECONDS),
            watching.watch_jobs(resume_token=event.resume_token) as events,
        ):
            assert (await anext(aiter(events))).synced
    assert await violations(database) == []
