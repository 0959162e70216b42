"""The progress endpoint of docs/guides/progress.md runs as it stands, and its page names all."""

import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import URLError

from jobledger import Client
from tests.support.forked import Piped
from tests.support.pages import ROOT, blocks, text_of
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess

PAGE = ROOT / "docs/guides/progress.md"
COMPONENT = ROOT / "gateway/jobledger_gateway/page/jobledger-progress.js"


def opened(url: str, process: Piped, **headers: str) -> Any:
    deadline = time.monotonic() + 60
    while True:
        try:
            return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
        except URLError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)


def events(answer: Any) -> Iterator[dict[str, str]]:
    """Yield each event of a stream: its fields."""
    fields: dict[str, str] = {}
    for line in answer:
        if name := line.decode().strip():
            fields.update([name.split(": ", 1)])
        else:
            yield fields
            fields = {}


def test_the_endpoint_of_the_page_sends_changes_and_heartbeats_and_resumes(
    server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    (program,) = [block.text for block in blocks(PAGE, "python")]
    port = free_port()
    text = program.replace("127.0.0.1:50051", server.target)
    text = text.replace("port=8000", f"port={port}").replace("heartbeats=5", "heartbeats=0.1")
    process = Piped("python", [text], env=os.environ, cwd=tmp_path)
    try:
        job = ada.create_job("greet")
        url = f"http://127.0.0.1:{port}/jobs/{job.id}/events"
        with closing(opened(url, process)) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            sent = events(answer)
            first = next(sent)
            assert json.loads(first["data"])["job"]["id"] == job.id
            assert first["id"] == "1"
            assert next(sent) == {"event": "upstream", "data": '{"connected": true}'}
        ada.start_job(job.id)
        ada.mark_completed(job.id, attempt=1)
        with closing(opened(url, process, **{"Last-Event-ID": "2"})) as answer:
            (last,) = [event for event in events(answer) if "id" in event]
        assert last["id"] == "3"
        assert json.loads(last["data"])["job"]["status"] == "JOB_STATUS_COMPLETED"
    finally:
        process.kill()
        process.communicate()


def test_the_page_names_all_that_the_element_has() -> None:
    source = COMPONENT.read_text("utf-8")
    named = {*re.findall(r'part="(\w+)"', source), *re.findall(r"--jobledger-\w+", source)}
    named |= set(re.findall(r'getAttribute\("(\w+)"\)', source))
    named |= set(re.findall(r'^  return [^;]*"(\w+)"', source, re.MULTILINE))
    assert len(named) > 10
    assert [name for name in named if name not in text_of(PAGE)] == []
    assert len(source.splitlines()) <= 150
