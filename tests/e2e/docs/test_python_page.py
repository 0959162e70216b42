"""The programs of docs/guides/python.md run unchanged, except for the address."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import forked
from tests.support.pages import ROOT, blocks
from tests.support.server_process import ServerProcess

PAGE = ROOT / "docs/guides/python.md"
PROGRAMS = [block.text for block in blocks(PAGE, "python")]


WORKER = """
from jobledger import Worker

worker = Worker("127.0.0.1:50051")
worker.handler("render")(lambda job: None)
worker.run_sync()
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a worker for the jobs of the page, which some programs wait for."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        text = WORKER.replace("127.0.0.1:50051", server.target)
        worker = forked.Piped("python", [text], env=os.environ)
        yield server
        worker.send_signal(signal.SIGINT)
        _, said = worker.communicate(20)
        assert worker.returncode == 0, said


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_the_programs_of_the_page_run(served, tmp_path, number):
    program = PROGRAMS[number].replace("127.0.0.1:50051", served.target)
    if number:
        run = forked.run("python", program, env=os.environ, cwd=tmp_path)
    else:
        run = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert (run.returncode, run.stderr) == (0, "")


def test_the_page_has_each_exception():
    from jobledger import errors

    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.JobledgerError) and name[0] != "_"
    }
    text = PAGE.read_text("utf-8")
    assert [name for name in sorted(kinds) if f"`{name}`" not in text] == []
