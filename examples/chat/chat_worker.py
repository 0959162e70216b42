"""Answers prompts: what the model says is the job's output, word by word."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import model
from chat_task import Prompt, chat

from jobledger import AsyncClient, ClaimedJob, Worker

SERVER = os.environ.get("JOBLEDGER_SERVER", "127.0.0.1:50051")


@asynccontextmanager
async def lifespan() -> AsyncIterator[AsyncClient]:
    """Open the client that all jobs share: `job.state`."""
    async with AsyncClient(SERVER) as client:
        yield client


# People wait for the words: five seconds after a worker's death another one goes on.
worker = Worker(SERVER, concurrency=10, lease=5, lifespan=lifespan)


@worker.handler(chat)
async def answer(job: ClaimedJob, params: Prompt) -> None:
    """Answer one prompt, from where an earlier attempt has come to."""
    async for word in model.answer(params.prompt, await written(job)):
        await job.write(word)


async def written(job: ClaimedJob) -> str:
    """Return what the job's earlier attempts have written. They cannot write any more."""
    text, offset, is_all = b"", 0, False
    while not is_all:
        piece = await job.state.read_output(job.id, user_id=job.user_id, offset=offset)
        text, offset, is_all = text + piece.data, piece.next_offset, piece.up_to_date
    return text.decode()


if __name__ == "__main__":
    worker.run_sync()
