"""A web application that starts a job for its user and shows it with <jobledger-progress>.

Needs `jobledger-server dev --cors-origin http://127.0.0.1:8000` and a worker (`hello_worker.py`).
Then open http://127.0.0.1:8000.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

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

client: AsyncClient


def user_of(request: Request) -> str:
    """Return who is logged in; here everybody is, under a name that a cookie keeps."""
    return request.cookies.get("user") or secrets.token_hex(8)


async def start(request: Request) -> Response:
    user = user_of(request)
    job = await client.create_job("greet", {"name": user}, user_id=user)
    answer = RedirectResponse(f"/?job={job.id}", status_code=303)
    answer.set_cookie("user", user, httponly=True, samesite="strict")
    return answer


async def show(request: Request) -> Response:
    user, progress = user_of(request), ""
    if job_id := request.query_params.get("job"):
        try:
            made = await client.create_watch_token(job_id, user_id=user)
        except (JobNotFound, InvalidField):
            return HTMLResponse("You have no such job.", status_code=404)
        src = f"{GATEWAY}/v1/jobs/{quote(job_id)}/events"
        progress = PROGRESS.format(src=src, token=made.token)
    return HTMLResponse(PAGE.format(gateway=GATEWAY, progress=progress))


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    global client
    async with AsyncClient(os.environ.get("JOBLEDGER_SERVER", "127.0.0.1:50051")) as client:
        yield


app = Starlette(routes=[Route("/", show), Route("/", start, methods=["POST"])], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
