"""What type checkers accept and refuse: the lines marked `# wrong`, and no others, are errors."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobledger import (
    Asset,
    AsyncClient,
    Attempt,
    BlockingJob,
    ClaimedJob,
    Client,
    Completed,
    Failed,
    FeedEvent,
    Job,
    JobChange,
    JobledgerError,
    JobStatus,
    JobView,
    NewJob,
    Outcome,
    Page,
    Partial,
    Release,
    Transition,
    Worker,
)
from jobledger.testing import (
    Backup,
    Server,
    WorkerProcess,
    World,
    run_handler,
    run_handler_async,
)
from jobledger.v1 import job_pb2
from jobledger.worker import Next


def owner(client: Client, job_id: str) -> None:
    job: Job = client.create_job("render", {"frames": [1, 2.5, None]}, labels={"a": "b"})
    jobs: list[Job] = client.create_jobs([NewJob("render"), NewJob("bake", {"a": 1})])
    created: datetime | None = job.create_time
    frames: int = (job.parameters or {})["frames"]
    finished: bool = job.is_terminal or job.status is JobStatus.QUEUED or job.status.is_terminal
    pages: Iterator[Page[Job]] = client.list_jobs(statuses=[JobStatus.FAILED]).pages()
    steps: list[Transition] = [*client.list_transitions(job_id, timeout=5, metadata={"a": "b"})]
    with client.watch(job_id, on_disconnect=print, connect_timeout=None) as changes:
        change: JobChange = next(changes)
    event: FeedEvent = next(client.watch_jobs(resume_token=""))
    done: list[Job] = client.wait_all([job_id], timeout=60)
    found: dict[str, Job] = client.get_jobs([job_id], view=JobView.FULL)
    attempts: list[Attempt] = [*client.list_attempts(job_id)]
    message: job_pb2.Job = job.to_proto()
    print(jobs, created, frames, finished, pages, steps, change, event, done, message, found, attempts)

    job.parameters["frames"]  # wrong
    client.create_job(5)  # wrong
    client.create_job("render", [1])  # wrong
    client.create_job("render", label={"a": "b"})  # wrong
    client.get_job("j", timeout="5")  # wrong
    client.get_job("j", deadline=5)  # wrong
    client.list_jobs(statuses=["FAILED"])  # wrong
    client.mark_failed("j", ValueError("no"))  # wrong
    client.mark_completed("j", assets=["a.png"])  # wrong
    client.watch("j", on_disconnect=5)  # wrong
    job.status = JobStatus.QUEUED  # wrong
    job.sattus  # wrong
    job.create_time.isoformat()  # wrong
    Job(id="j")  # wrong
    Asset(url="https://example.com")  # wrong


async def asynchronous(client: AsyncClient, job_id: str) -> None:
    job: Job = await client.get_job(job_id)
    async with client.watch(job_id) as changes:
        async for change in changes:
            print(change.job, change.transitions)
    async for page in client.list_jobs().pages():
        print(page.items, page.next_page_token)
    async for finished in client.as_completed([job_id]):
        print(finished.result)
    try:
        await client.wait(job_id, timeout=5)
    except JobledgerError as error:
        print(error.code, error.retry_after)
    except (TimeoutError, ConnectionError):
        pass
    print(job)

    for _ in client.watch(job_id):  # wrong
        pass
    client.get_job(job_id).status  # wrong


async def worker(client: AsyncClient) -> None:
    worker = Worker(client, concurrency=2)

    @worker.handler("render")
    async def render(job: ClaimedJob) -> Completed | Partial | Failed:
        await job.progress(50, "half")
        asset: Asset = await job.add_asset("image/png", url="https://example.com/a.png")
        if job.parameters.get("broken"):
            return Failed("broken", "BROKEN")
        return Completed({"id": asset.id}, assets=[Asset("text/plain", storage_path="log")])

    await worker.run()
    await render(ClaimedJob(worker))  # wrong

    Completed("done")  # wrong
    Failed(ValueError("no"))  # wrong
    Partial({}, 5)  # wrong
    Worker(client, concurrency="2")  # wrong


@dataclass
class RenderParams:
    scene: str


async def timed(job: ClaimedJob, call_next: Next) -> Outcome | None:
    return await call_next(job)


async def handlers() -> None:
    worker = Worker("127.0.0.1:50051", middleware=[timed])

    @worker.handler
    async def typed(job: ClaimedJob, params: RenderParams) -> RenderParams:
        job.log.info("%s", params.scene)
        return params

    @worker.handler(concurrency=2, timeout=5, executor="process")
    def plain(job: BlockingJob) -> dict[str, int] | Release:
        job.progress()
        return {"frames": 1}

    async def no_outcome(job: ClaimedJob) -> list[int]:
        return []

    def not_awaited(job: ClaimedJob) -> None:
        print(job.id)

    worker.handler(no_outcome)  # wrong
    worker.handler("render")(no_outcome)  # wrong
    worker.handler(not_awaited)  # wrong
    worker.handler("render", executor="fork")  # wrong
    worker.handler(7)  # wrong

    run = await run_handler_async(typed, {"scene": "castle"}, cancel_after=1)
    print(run.outcome, run.reports[0].progress, run.assets[0].url)
    run_handler(plain, {}, cancel_before=1)  # wrong


def make_worker(client: AsyncClient) -> Worker:
    return Worker(client, lease=30)


async def simulated(world: World) -> float:
    processes: list[WorkerProcess] = world.worker(make_worker, processes=2)
    client: AsyncClient = world.client("ada", server="server-1")
    job: Job = await client.create_job("render")
    async with world.chaos(minutes=5, clock=False):
        done: Job = await world.finished(job, within=timedelta(days=1))
    server: Server = world.servers["server-1"]
    server.freeze()
    await processes[0].stop()
    saved: Backup = world.backup()
    await world.restore(saved)

    world.worker(make_worker("client"))  # wrong
    world.worker(simulated)  # wrong
    world.client(7)  # wrong
    world.chaos(disk=False)  # wrong
    await world.finished(done.id)  # wrong
    await world.restore("backup.db")  # wrong
    world.servers["server-1"].worker  # wrong
    return world.loop.time()


def worlds() -> None:
    seconds: float = World(3, servers=2, store="sqlite").run(simulated)
    print(seconds)

    World(3, store="postgresql")  # wrong
    World().run(simulated)  # wrong
    World("3").run(make_worker)  # wrong
