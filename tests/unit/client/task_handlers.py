"""Handlers in a module of their own, for workers that include it."""

from dataclasses import dataclass

from jobledger import BlockingJob, ClaimedJob, Task, handler
from tests.unit.client.test_parameters import Handlers  # noqa: F401  # not a handler of this module


@dataclass
class Render:
    width: int


@dataclass
class Picture:
    url: str


render = Task("render", Render, result=Picture)
clean = Task("clean", Render)


@handler(render, timeout=60)
async def run(job: ClaimedJob, params: Render) -> Picture:
    return Picture(f"s3://{params.width}")


@handler(clean, concurrency=2)
def sweep(job: BlockingJob, params: Render) -> None: ...


@handler
async def untyped(job: ClaimedJob) -> None: ...


def not_a_handler(job: BlockingJob) -> None: ...
