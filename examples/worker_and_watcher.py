"""A job's worker and its watcher, side by side; needs `jobledger-server serve`."""

import asyncio
import os

from jobledger_client import Asset, AsyncClient, JobStatus

PAGES = 4


async def work(client: AsyncClient, job_id: str) -> None:
    job = await client.start_job(job_id)
    for page in range(1, PAGES + 1):
        await asyncio.sleep(0.5)  # Here goes the work.
        await client.update_progress(
            job.id, 100 * page // PAGES, progress_message=f"page {page}", attempt=job.attempt
        )
    report = Asset(asset_type="text/html", url=f"https://reports.example/{job.id}")
    await client.mark_completed(job.id, {"pages": PAGES}, assets=[report], attempt=job.attempt)


async def watch(client: AsyncClient, job_id: str) -> None:
    async for message in client.watch(job_id):
        job = message.job
        print(JobStatus.Name(job.status), f"{job.progress} %", job.progress_message)


async def main() -> None:
    server = os.environ.get("JOBLEDGER_SERVER", "127.0.0.1:50051")
    async with AsyncClient(server, user_id="ada") as client, asyncio.TaskGroup() as tasks:
        job = await client.create_job("report", {"month": "2026-11"})
        tasks.create_task(watch(client, job.id))
        tasks.create_task(work(client, job.id))


asyncio.run(main())
