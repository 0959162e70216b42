"""A worker and a watcher in one program; needs `jobledger-server serve`."""

import asyncio
import os

from jobledger import Asset, AsyncClient, ClaimedJob, Completed, Worker

PAGES = 4


async def report(job: ClaimedJob) -> Completed:
    for page in range(1, PAGES + 1):
        await asyncio.sleep(0.5)  # Here goes the work.
        await job.progress(100 * page / PAGES, f"page {page}")
    made = Asset("text/html", url=f"https://reports.example/{job.id}")
    return Completed({"pages": PAGES}, assets=[made])


async def main() -> None:
    server = os.environ.get("JOBLEDGER_SERVER", "127.0.0.1:50051")
    async with AsyncClient(server, user_id="ada") as client, asyncio.TaskGroup() as tasks:
        worker = Worker(client)
        worker.handler(report)
        tasks.create_task(worker.run())

        job = await client.create_job("report", {"month": "2026-11"})
        async for change in client.watch(job.id):
            print(change.job.status, f"{change.job.progress} %", change.job.progress_message)
        worker.stop()


if __name__ == "__main__":
    asyncio.run(main())
