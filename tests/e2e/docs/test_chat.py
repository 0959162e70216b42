"""The chat of examples/chat shows each word once, whatever is killed while the model speaks."""

import asyncio
import http.client
import importlib
import json
import os
import time
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from jobledger import AttemptOutcome, Client
from tests.support.forked import Piped
from tests.support.pages import ROOT
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess

FOLDER = ROOT / "examples/chat"
PROMPT = "Schläfst du? ☕"

PROGRAM = f"import runpy, sys; sys.path.insert(0, {str(FOLDER)!r})\n"
# Its model says a word for each line that it is given.
WORKER = (
    PROGRAM
    + """
import asyncio, model
model.think = lambda: asyncio.to_thread(sys.stdin.readline)
runpy.run_path(sys.path[0] + "/chat_worker.py", run_name="__main__")
"""
)
WEB = PROGRAM + 'runpy.run_path(sys.path[0] + "/chat_web.py", run_name="__main__")'


class ChatWorker:
    """A worker whose model says as much as it may."""

    def __init__(self, server: ServerProcess) -> None:
        read, self._lines = os.pipe()
        environment = {**os.environ, "JOBLEDGER_SERVER": server.target}
        self._process = Piped("python", [WORKER], env=environment, stdin=read)
        os.close(read)

    def may_say(self, words: int) -> None:
        os.write(self._lines, b"\n" * words)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()
        os.close(self._lines)


class Web:
    """The web service, on one port through all its restarts."""

    def __init__(self, server: ServerProcess) -> None:
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._environment = {
            **os.environ,
            "JOBLEDGER_SERVER": server.target,
            "PORT": str(port),
        }
        self.start()

    def start(self) -> None:
        self._process = Piped("python", [WEB], env=self._environment)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def open(self, path: str, body: object = None, **headers: str) -> Any:
        """Open an address once the service listens."""
        data = None if body is None else json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.address + path, data, headers)
        end = time.monotonic() + 60
        while True:
            try:
                return urllib.request.urlopen(request, timeout=60)
            except urllib.error.HTTPError:
                raise
            except OSError:
                assert self._process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)


class Browser:
    """What an EventSource does: it reads, and after a break asks for what comes after its id."""

    def __init__(self, web: Web, job_id: str) -> None:
        self._web = web
        self._path = f"/chats/{job_id}/events"
        self.text = ""
        self.ends: list[Any] = []
        """What came after the last word."""
        self.breaks = -1
        self._id = "0"
        self._events = self._read()

    def see(self, text: str) -> None:
        """Read on until at least this was shown."""
        while len(self.text) < len(text):
            self._take(next(self._events))
        assert self.text.startswith(text)

    def see_the_end(self) -> None:
        while self.ends[-1:] != ["[DONE]"]:
            self._take(next(self._events))

    def close(self) -> None:
        self._events.close()

    def _take(self, event: dict[str, str]) -> None:
        data = event["data"]
        chunk = data if data == "[DONE]" else json.loads(data)
        if "id" not in event:
            self.ends.append(chunk)
            return
        assert chunk["object"] == "chat.completion.chunk"
        choice = chunk["choices"][0]
        self.text += choice["delta"]["content"]
        assert (choice["index"], choice["finish_reason"]) == (0, None)
        self._id = event["id"]
        assert self._id == str(len(self.text.encode()))

    def _read(self) -> Generator[dict[str, str], None, None]:
        while True:
            self.breaks += 1
            event: dict[str, str] = {}
            headers = {"Last-Event-ID": self._id}
            try:
                with closing(self._web.open(self._path, **headers)) as answer:
                    assert answer.headers["content-type"].startswith("text/event-stream")
                    for line in answer:
                        name, _, value = line.decode().rstrip("\n").partition(": ")
                        if name in {"id", "data"}:
                            event[name] = value
                        elif event:
                            yield event
                            event = {}
            except (http.client.HTTPException, ConnectionError):
                continue


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what the model answers."""
    monkeypatch.syspath_prepend(FOLDER)
    model = importlib.import_module("model")

    async def answered() -> list[str]:
        return [word async for word in model.answer(PROMPT, "")]

    async def think() -> None:
        pass

    monkeypatch.setattr(model, "think", think)
    return asyncio.run(answered())


@contextmanager
def killed(process: Any) -> Iterator[Any]:
    try:
        yield process
    finally:
        process.kill()


def test_no_word_is_lost_or_shown_twice_when_worker_server_and_web_service_are_killed(
    own_server: ServerProcess, words: list[str]
) -> None:
    def first(count: int) -> str:
        return "".join(words[:count])

    assert len(words) > 40
    with ExitStack() as stack:
        web = stack.enter_context(killed(Web(own_server)))
        with killed(ChatWorker(own_server)) as worker:
            job_id = json.load(web.open("/chats", {"prompt": PROMPT}))["id"]
            browser = stack.enter_context(closing(Browser(web, job_id)))
            worker.may_say(10)
            browser.see(first(10))
            worker.may_say(3)  # Nobody knows how much of this is stored.
        own_server.kill()
        own_server.start()
        worker = stack.enter_context(killed(ChatWorker(own_server)))
        worker.may_say(10)
        browser.see(first(20))
        worker.may_say(4)
        own_server.kill()
        worker.may_say(4)
        own_server.start()
        browser.see(first(28))
        assert browser.breaks == 0
        worker.may_say(3)
        web.kill()
        web.start()
        worker.may_say(len(words))
        browser.see_the_end()
        assert browser.text == "".join(words)
        assert browser.breaks == 1
        late = stack.enter_context(closing(Browser(web, job_id)))
        late.see_the_end()
        assert late.text == browser.text
    stop, _ = browser.ends
    assert stop["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    with Client(own_server.target, user_id="web") as client:
        outcomes = [attempt.outcome for attempt in client.list_attempts(job_id)]
    assert outcomes == [AttemptOutcome.LEASE_EXPIRED, AttemptOutcome.COMPLETED]


def test_the_events_of_a_failed_or_unknown_chat_end_with_an_error(
    own_server: ServerProcess,
) -> None:
    with killed(Web(own_server)) as web, Client(own_server.target, user_id="web") as client:
        job = client.create_job("chat", {"prompt": "Hello"})
        client.start_job(job.id)
        client.mark_failed(job.id, "no model", attempt=1, reason="NO_MODEL")
        for job_id, message in ((job.id, "no model"), ("none", "no job")):
            with closing(Browser(web, job_id)) as browser:
                browser.see_the_end()
            error, _ = browser.ends
            assert message in error["error"]["message"]


def test_a_character_that_is_cut_is_shown_whole_even_after_a_break(
    own_server: ServerProcess,
) -> None:
    with killed(Web(own_server)) as web, Client(own_server.target, user_id="web") as client:
        job = client.create_job("chat", {"prompt": "Hello"})
        client.start_job(job.id)
        client.append_output(job.id, 1, b"a caf\xc3")
        with closing(Browser(web, job.id)) as browser:
            browser.see("a caf")
            web.kill()
            web.start()
            client.append_output(job.id, 1, b"\xa9!")
            browser.see("a café!")
            assert browser.breaks == 1
