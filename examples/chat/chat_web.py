"""A chat: POST /chats asks the model, GET /chats/ID/events streams what it says.

The events are those of OpenAI's streaming chat completions. Each has an `id`, with which a browser
goes on after a break. Needs `jobledger-server dev` and chat_worker.py; open http://127.0.0.1:8000.
"""

import codecs
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from chat_task import Prompt, chat
from fastapi import FastAPI, Header
from fastapi.responses import HTMLResponse, StreamingResponse

from jobledger import AsyncClient, InvalidField, JobNotFound, JobStatus

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Words</title>
<form><input id="prompt" aria-label="Prompt" value="Tell me a story"> <button>Ask</button></form>
<p id="answer" style="white-space: pre-wrap"></p>
<script type="module">
  const answer = document.getElementById("answer");
  document.forms[0].onsubmit = async (submit) => {
    submit.preventDefault();
    answer.textContent = "";
    const asked = await fetch("/chats", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ prompt: document.getElementById("prompt").value }),
    });
    // After a break it connects again by itself, with the last id.
    const events = new EventSource(`/chats/${(await asked.json()).id}/events`);
    events.onmessage = ({ data }) => {
      if (data === "[DONE]") return events.close();
      const { choices, error } = JSON.parse(data);
      answer.textContent += error ? ` (${error.message})` : (choices[0].delta.content ?? "");
    };
  };
</script>
</html>"""

# Each user is an owner of their own in your application.
client = AsyncClient(os.environ.get("JOBLEDGER_SERVER", "127.0.0.1:50051"), user_id="web")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close the client when the service ends."""
    async with client:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def show() -> HTMLResponse:
    """Answer with the page."""
    return HTMLResponse(PAGE)


@app.post("/chats", status_code=202)
async def ask(prompt: Prompt) -> dict[str, str]:
    """Create the job that answers."""
    job = await client.submit(chat, prompt)
    return {"id": job.id}


@app.get("/chats/{job_id}/events")
async def events(job_id: str, last_event_id: Annotated[int, Header(ge=0)] = 0) -> StreamingResponse:
    """Answer with the words as they come, after those that the browser has."""
    return StreamingResponse(words(job_id, last_event_id), media_type="text/event-stream")


async def words(job_id: str, offset: int) -> AsyncIterator[str]:
    """Yield the events of a chat. They survive a restart of the service, or of the worker."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    try:
        async with client.output(job_id, after=offset, heartbeats=15) as pieces:
            async for piece in pieces:
                text = decoder.decode(piece.data)
                # A character may be cut between two pieces.
                end = piece.next_offset - len(decoder.getstate()[0])
                yield f"id: {end}\n{event(choice(content=text))}" if text else ":\n\n"
        job = await client.get_job(job_id)
    except (JobNotFound, InvalidField) as error:
        yield event({"error": {"message": str(error)}})
    else:
        if job.status is JobStatus.COMPLETED:
            yield event(choice("stop"))
        else:
            yield event({"error": {"message": job.error.message if job.error else job.status}})
    yield "data: [DONE]\n\n"


def choice(finish_reason: str | None = None, **delta: str) -> dict[str, Any]:
    """Return the chunk with a piece of the answer, or with its end."""
    made = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"object": "chat.completion.chunk", "choices": [made]}


def event(data: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"data: {json.dumps(data)}\n\n"


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ.get("PORT", "8000")),
        timeout_graceful_shutdown=5,
    )
