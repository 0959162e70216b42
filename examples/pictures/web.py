"""A web service: POST /pictures orders a picture, GET /pictures/ID/events follows it."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse
from picture_task import Picture, picture

from jobledger import AsyncClient, InvalidField, Job, JobNotFound, RequestIdReused

client = AsyncClient(os.environ.get("JOBLEDGER_SERVER", "127.0.0.1:50051"), user_id="web")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close the client when the service ends."""
    async with client:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/pictures", status_code=202)
async def order(
    parameters: Picture, idempotency_key: Annotated[str | None, Header()] = None
) -> dict[str, str]:
    """Create a job. The same `Idempotency-Key` with the same content is the same job."""
    try:
        job = await client.submit(picture, parameters, request_id=idempotency_key)
    except InvalidField as error:
        raise HTTPException(400, str(error)) from error
    except RequestIdReused as error:
        raise HTTPException(409, str(error)) from error
    return {"id": job.id}


@app.get("/pictures/{job_id}")
async def show(job_id: str) -> dict[str, object]:
    """Answer with the job as it is now."""
    job = await found(job_id)
    return {"status": job.status, "progress": job.progress, "result": job.result}


@app.get("/pictures/{job_id}/events")
async def events(job_id: str) -> StreamingResponse:
    """Answer with each change of the job, as a server-sent event."""
    job = await found(job_id)

    async def send() -> AsyncIterator[str]:
        async with client.watch(job) as changes:
            async for change in changes:
                event = {"status": change.job.status, "progress": change.job.progress}
                yield f"data: {json.dumps(event)}\n\n"

    return StreamingResponse(send(), media_type="text/event-stream")


async def found(job_id: str) -> Job:
    """Return the job, or answer that there is none."""
    try:
        return await client.get_job(job_id)
    except (JobNotFound, InvalidField) as error:
        raise HTTPException(404, "no such picture") from error


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
