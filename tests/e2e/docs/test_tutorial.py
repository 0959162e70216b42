"""The tutorial's programs are those of the page, and work together as it says."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import ROOT, blocks
from tests.support.pytest_run import run_pytest
from tests.support.server_process import ServerProcess

FOLDER = ROOT / "examples/pictures"
PAGE = ROOT / "docs/start/tutorial.md"


def test_the_page_shows_the_programs_as_they_are() -> None:
    shown = [block.text for block in blocks(PAGE, "python")]
    files = ("render.py", "picture_task.py", "picture_worker.py", "web.py", "test_pictures.py")
    assert shown == [(FOLDER / name).read_text(encoding="utf-8") for name in files]


@contextlib.contextmanager
def program(name: str, server: ServerProcess, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    environment = {
        **os.environ,
        "JOBLEDGER_SERVER": server.target,
        "PICTURES": str(folder / "pictures"),
        "PORT": "0",
    }
    command = [sys.executable, str(FOLDER / name)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.terminate()


def post(web: str, body: bytes, key: str) -> Any:
    request = urllib.request.Request(
        f"{web}/pictures", body, {"Idempotency-Key": key}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def order(web: str, parameters: dict[str, Any], key: str) -> str:
    return str(post(web, json.dumps(parameters).encode(), key)["id"])


def refusal(web: str, body: bytes, key: str) -> tuple[int, str]:
    """Return the code and the error of a refused order."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        post(web, body, key)
    with raised.value as answer:
        return answer.code, json.load(answer)["error"]


def events(web: str, job_id: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{web}/pictures/{job_id}/events", timeout=60) as stream:
        lines = stream.read().decode().split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


def test_a_picture_of_the_tutorial_is_ordered_watched_and_rendered_once(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    with (
        program("web.py", own_server, tmp_path) as web,
        program("picture_worker.py", own_server, tmp_path),
    ):
        assert web.stdout is not None
        address = web.stdout.readline().strip()
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
    with program("web.py", own_server, tmp_path) as web:
        assert web.stdout is not None
        address = web.stdout.readline().strip()
        order(address, {"width": 160, "height": 100}, "first")
        code, error = refusal(address, b'{"width": 320, "height": 200}', "first")
        assert (code, "first" in error) == (409, True)
        for body in (b"{", b"\xff", b"", b"[]", b'"a"', b'{"width": "wide"}', b'{"widht": 1}'):
            code, error = refusal(address, body, "second")
            assert (code, bool(error)) == (400, True)


def test_the_tests_of_the_tutorial_pass() -> None:
    here = ("-c", os.devnull, "--rootdir", str(FOLDER), "-p", "no:cacheprovider")
    run = run_pytest(FOLDER, *here)
    assert "2 passed" in run.stdout, run.stdout + run.stderr
