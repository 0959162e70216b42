"""Tasks to a type checker: the lines marked `# wrong`, and no others, are errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import pydantic

from jobledger import (
    AsyncClient,
    BlockingJob,
    ClaimedJob,
    Client,
    Completed,
    Failed,
    Job,
    NewJob,
    Outcome,
    RetryPolicy,
    Task,
    Worker,
    handler,
    minutes,
)
from jobledger.testing import run_handler


@dataclass
class Render:
    width: int


class Picture(msgspec.Struct):
    url: str


class Model(pydantic.BaseModel):
    name: str


render = Task(
    "render",
    Render,
    result=Picture,
    retry=RetryPolicy(max_attempts=5),
    run_timeout=minutes(30),
)
clean = Task("clean", Model)
worker = Worker()


def owner(client: Client) -> None:
    job: Job = client.submit(render, Render(width=1024), delay=60, priority=8, labels={"a": "b"})
    picture: Picture = client.result(render, job, timeout=minutes(1))
    batch: list[NewJob] = [render.new(Render(width=1)), clean.new(Model(name="a"), priority=1)]
    jobs: Sequence[Job] = client.create_jobs(batch)
    urls: list[str] = [render.result_of(each).url for each in client.as_completed(jobs)]
    print(picture.url, urls)

    client.submit(render, Render(widht=1024))  # wrong
    client.submit(render, Render(width="wide"))  # wrong
    client.submit(render, Picture("u"))  # wrong
    client.submit(render, {"width": 1024})  # wrong
    client.submit(render, Render(width=1), retries=3)  # wrong
    client.submit("render", Render(width=1))  # wrong
    render.new(Model(name="a"))  # wrong
    client.result(render, job).height  # wrong
    number: int = client.result(render, job)  # wrong
    client.result(render, 5)  # wrong
    render.parameters.width  # wrong
    Task("render", Render, result=Picture, retry=5)  # wrong
    Task("render", Render, run_time=5)  # wrong
    Task("render", Render(width=1), result="Picture")  # wrong
    print(number)


async def asynchronous(client: AsyncClient) -> str:
    job: Job = await client.submit(render, Render(width=1024))
    picture: Picture = await client.result(render, job)
    (await client.submit(clean, Render(width=1)))  # wrong
    client.result(render, job).url  # wrong
    return picture.url


@worker.handler(render)
async def run(job: ClaimedJob, params: Render) -> Picture:
    await job.progress(50)
    return Picture(f"s3://{params.width}")


@worker.handler(render, timeout=60, concurrency=2)
def blocking(job: BlockingJob, params: Render) -> Picture | Outcome:
    return Completed(Picture("u")) if params.width else Failed("no")


@handler(render, retry_on=OSError)
async def declared(job: ClaimedJob, params: Render) -> Picture | Failed:
    return Picture("u")


@handler(clean)
def sweep(job: BlockingJob, params: Model) -> None:
    print(params.name)


@worker.handler("untyped")
async def struct(job: ClaimedJob, params: Render) -> Picture:
    return Picture(f"s3://{params.width}")


@worker.handler("model")
async def model(job: ClaimedJob) -> Model:
    return Model(name="a")


async def returns_another(job: ClaimedJob, params: Render) -> Render:
    return params


async def returns_none(job: ClaimedJob, params: Render) -> None: ...


async def takes_another(job: ClaimedJob, params: Model) -> Picture:
    return Picture("u")


def not_async(job: ClaimedJob, params: Render) -> Picture:
    return Picture("u")


worker.handler(render)(returns_another)  # wrong
worker.handler(render)(returns_none)  # wrong
worker.handler(render)(takes_another)  # wrong
worker.handler(render)(not_async)  # wrong
handler(render)(returns_another)  # wrong
handler(render, time=5)  # wrong
worker.handler(clean)(run)  # wrong
run_handler(run, Render(width=1), task=render)
run_handler(run, 5)  # wrong
