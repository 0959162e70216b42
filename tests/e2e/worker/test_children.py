"""Jobs that a handler creates."""

import asyncio
import uuid
from typing import Any

from jobledger import AsyncClient, JobStatus, RetryLater, Worker
from tests.support.server_process import ServerProcess


async def test_a_handler_that_is_run_again_creates_each_child_once(server: ServerProcess) -> None:
    user, kind = f"user-{uuid.uuid4()}", f"split-{uuid.uuid4().hex[:8]}"
    made = []
    async with AsyncClient(server.target, user_id=user) as client:
        worker = Worker(client)

        @worker.handler(kind)
        async def split(job: Any) -> None:
            children = [await job.create_child("part", {"part": part}) for part in range(2)]
            children.append(await job.create_child("sum", key="sum"))
            made.extend(child.id for child in children)
            if job.attempt == 1:
                raise RetryLater("once more", after=0)

        group = await client.create_group("album")
        parent = await client.create_job(kind, group_id=group)
        running = asyncio.create_task(worker.run())
        assert (await client.wait(parent, timeout=30)).status is JobStatus.COMPLETED
        running.cancel()
        await asyncio.wait({running})
        assert made[:3] == made[3:]
        jobs = [job async for job in client.list_jobs(group_id=group)]
        assert {job.id for job in jobs} == {parent.id, *made}
        assert (await client.get_job(group)).group.total == 4
