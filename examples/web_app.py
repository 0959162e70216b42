"""A web application that starts a job for its user and shows it with <jobledger-progress>.

Needs `jobledger-server dev --cors-origin http://127.0.0.1:8000` and a worker (`hello_worker.py`).
Then open http://127.0.0.1:8000.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from urllib.parse import quote

import uvicorn
from fastapi import Cookie, FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse

from jobledger import AsyncClient, InvalidField, JobNotFound

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
PAGE = """<!doctype html>
<html lang="en"><title>Greetings</title>
<script src="{gateway}/static/jobledger-progress.js" defer></script>
<main>
<h1>Greetings</h1>
<form method="post"><button>Greet me</button></form>
{progress}
</main></html>"""
PROGRESS = '<jobledger-progress src="{src}" token="{token}"></jobledger-progress>'

client = AsyncClient(os.environ.get("JOBLEDGER_SERVER", "127.0.0.1:50051"))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with client:
        yield


app = FastAPI(lifespan=lifespan)
User = Annotated[str, Cookie(default_factory=lambda: secrets.token_hex(8))]
"""Who is logged in; here everybody is, under a name that a cookie keeps."""


@app.post("/")
async def start(user: User) -> RedirectResponse:
    job = await client.create_job("greet", {"name": user}, user_id=user)
    answer = RedirectResponse(f"/?job={job.id}", status_code=303)
    answer.set_cookie("user", user, httponly=True, samesite="strict")
    return answer


@app.get("/")
async def show(user: User, job: str = "") -> HTMLResponse:
    if not job:
        return HTMLResponse(PAGE.format(gateway=GATEWAY, progress=""))
    try:
        made = await client.create_watch_token(job, user_id=user)
    except (JobNotFound, InvalidField):
        return HTMLResponse("You have no such job.", status_code=404)
    progress = PROGRESS.format(src=f"{GATEWAY}/v1/jobs/{quote(job)}/events", token=made.token)
    return HTMLResponse(PAGE.format(gateway=GATEWAY, progress=progress))


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
