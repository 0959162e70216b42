"""The programs of docs/guides/python.md run unchanged, except for the address."""

import os
import subprocess
import sys

import pytest

from tests.support import forked
from tests.support.pages import ROOT, blocks

PAGE = ROOT / "docs/guides/python.md"
PROGRAMS = [block.text for block in blocks(PAGE, "python")]


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_the_programs_of_the_page_run(server, tmp_path, number):
    program = PROGRAMS[number].replace("127.0.0.1:50051", server.target)
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
