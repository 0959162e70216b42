"""A worker of the tests, as a process: worker_program.py TARGET TYPE [MODE [ARGUMENT]].

It prints one event a line on stdout: a word and its facts. SIGUSR1 lets the jobs that it
holds finish.
"""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from jobledger import AsyncClient
from jobledger.worker import ClaimedJob, Completed, Worker

LEASE = 5.0


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201


async def hold(
    client: AsyncClient, job_type: str, go: asyncio.Event, concurrency: str = "4"
) -> None:
    """Hold each job until SIGUSR1."""
    worker = Worker(client, concurrency=int(concurrency), lease=LEASE, grace=0.2)

    @worker.handler(job_type)
    async def handle(job: ClaimedJob) -> Completed:
        say("started", job.id, job.attempt)
        try:
            await go.wait()
        except asyncio.CancelledError:
            say("cancelled", job.id, job.attempt)
            raise
        return Completed({"pid": os.getpid()})

    say("ready")
    await worker.run(signals=True)


async def crowd(client: AsyncClient, job_type: str, directory: str) -> None:
    """Run short jobs; each attempt writes a line."""
    worker = Worker(client, concurrency=4, lease=LEASE)

    @worker.handler(job_type)
    async def handle(job: ClaimedJob) -> Completed:
        with (Path(directory) / job.id).open("a") as file:
            file.write(f"{job.attempt} {os.getpid()}\n")
        await job.progress(50)
        await asyncio.sleep(random.uniform(0.1, 0.9))
        return Completed({"attempt": job.attempt})

    say("ready")
    await worker.run(signals=True)


async def steps(client: AsyncClient, job_type: str, file: str, last: str = "") -> None:
    """Do ten steps, with a checkpoint after each; write down what was done when.

    With `last`, "did" or "kept", it does nothing more once it has said that.
    """
    worker = Worker(client, lease=LEASE)

    async def tell(word: str, step: int, attempt: int) -> None:
        with Path(file).open("a") as lines:
            lines.write(f"{word} {step} {attempt}\n")
        say(word, step)
        if word == last:
            await asyncio.Event().wait()

    @worker.handler(job_type)
    async def handle(job: ClaimedJob) -> Completed:
        checkpoint = job.checkpoint or {"step": 0}
        for step in range(checkpoint["step"], 10):
            await tell("did", step, job.attempt)
            await job.progress(10 * step, checkpoint={"step": step + 1}, wait=True)
            await tell("kept", step, job.attempt)
        return Completed({"attempt": job.attempt})

    say("ready")
    await worker.run(signals=True)


async def main(target: str, job_type: str, mode: str = "hold", *arguments: str) -> None:
    go = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go.set)
    async with AsyncClient(target) as client:
        match mode:
            case "hold":
                await hold(client, job_type, go, *arguments)
            case "steps":
                await steps(client, job_type, *arguments)
            case "crowd":
                await crowd(client, job_type, *arguments)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
