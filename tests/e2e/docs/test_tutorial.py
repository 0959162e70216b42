"""The tutorial's programs are those of the page, and work together as it says."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import ROOT, blocks
from tests.support.ports import free_port
from tests.support.pytest_run import run_pytest
from tests.support.server_process import ServerProcess

FOLDER = ROOT / "examples/pictures"
PAGE = ROOT / "docs/start/tutorial.md"


def test_the_page_shows_the_programs_as_they_are() -> None:
    shown = [block.text for block in blocks(PAGE, "python")]
    files = ("render.py", "picture_task.py", "picture_worker.py", "web.py", "test_pictures.py")
    assert shown == [(FOLDER / name).read_text(encoding="utf-8") for name in files]


@contextlib.contextmanager
def program(
    name: str, server: ServerProcess, folder: Path, port: int = 0
) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {
        **os.environ,
        "JOBLEDGER_SERVER": server.target,
        "PICTURES": str(folder / "pictures"),
        "PORT": str(port),
    }
    with subprocess.Popen([sys.executable, str(FOLDER / name)], env=environment) as running:
        try:
            yield running
        finally:
            running.terminate()


@contextlib.contextmanager
def web_service(server: ServerProcess, folder: Path) -> Iterator[str]:
    """Run web.py; yield its address."""
    port = free_port()
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 60
    with program("web.py", server, folder, port) as running:
        while True:
            try:
                urllib.request.urlopen(f"{address}/openapi.json", timeout=30).close()
                break
            except urllib.error.URLError:
                assert running.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
        yield address


def post(web: str, body: bytes, key: str) -> Any:
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{web}/pictures", body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def order(web: str, parameters: dict[str, Any], key: str) -> str:
    return str(post(web, json.dumps(parameters).encode(), key)["id"])


def refusal(web: str, body: bytes, key: str) -> tuple[int, str]:
    """Return the code and the reason of a refused order."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        post(web, body, key)
    with raised.value as answer:
        return answer.code, str(json.load(answer)["detail"])


def events(web: str, job_id: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{web}/pictures/{job_id}/events", timeout=60) as stream:
        lines = stream.read().decode().split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


def test_a_picture_of_the_tutorial_is_ordered_watched_and_rendered_once(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    with (
        web_service(own_server, tmp_path) as address,
        program("picture_worker.py", own_server, tmp_path),
    ):
        picture = order(address, {"width": 160, "height": 100}, "first")
        assert order(address, {"width": 160, "height": 100}, "first") == picture
        seen = events(address, picture)
        with urllib.request.urlopen(f"{address}/pictures/{picture}", timeout=30) as answer:
            job = json.load(answer)
        large = order(address, {"width": 4000, "height": 4000}, "large")
        assert events(address, large)[-1]["status"] == "FAILED"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/pictures/none", timeout=30)
    assert seen[-1] == {"status": "COMPLETED", "progress": 100}
    assert [e["progress"] for e in seen] == sorted(e["progress"] for e in seen)
    (file,) = (tmp_path / "pictures").iterdir()
    assert job["result"] == {"file": file.name}
    assert file.read_bytes().startswith(b"\x89PNG")


def test_an_order_that_the_tutorial_cannot_take_is_refused_with_a_reason(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    with web_service(own_server, tmp_path) as address:
        order(address, {"width": 160, "height": 100}, "first")
        code, error = refusal(address, b'{"width": 320, "height": 200}', "first")
        assert (code, "first" in error) == (409, True)
        code, error = refusal(address, b'{"width": 320}', "k" * 200)
        assert (code, "request_id" in error) == (400, True)
        for body in (b"{", b"\xff", b"", b"[]", b'"a"', b'{"width": "wide"}'):
            code, error = refusal(address, body, "second")
            assert (code in {400, 422}, bool(error)) == (True, True)


def test_the_tests_of_the_tutorial_pass() -> None:
    here = ("-c", os.devnull, "--rootdir", str(FOLDER), "-p", "no:cacheprovider")
    run = run_pytest(FOLDER, *here)
    assert "2 passed" in run.stdout, run.stdout + run.stderr
