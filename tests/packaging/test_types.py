"""Type checkers accept right programs and refuse wrong ones, line by line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import ROOT

PROGRAM = Path(__file__).parent / "typing/right_and_wrong.py"
WRONG = {
    number
    for number, line in enumerate(PROGRAM.read_text("utf-8").splitlines(), 1)
    if line.endswith("# wrong")
}
EXAMPLES = [ROOT / "examples/worker_and_watcher.py"]

pytestmark = pytest.mark.timeout(300)


def mypy(*files):
    """Return the numbers of the lines with errors in each file."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--hide-error-context"),
            *("--config-file", "", "--follow-imports", "silent"),
            *files,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROGRAM.parent,
        env={"MYPYPATH": f"{ROOT}/client"},
    )
    assert run.returncode in {0, 1}, run.stderr
    return {int(found[1]) for found in re.finditer(r"\.py:(\d+): error:", run.stdout)}, run.stdout


def pyright(*files):
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable),
            *files,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROGRAM.parent,
    )
    assert run.returncode in {0, 1}, run.stderr
    found = json.loads(run.stdout)["generalDiagnostics"]
    errors = [error for error in found if error["severity"] == "error"]
    return {error["range"]["start"]["line"] + 1 for error in errors}, run.stdout


# pyright fetches its program with npm.
CHECKERS = [mypy, pytest.param(pyright, marks=pytest.mark.polyglot)]


@pytest.mark.parametrize("checker", CHECKERS)
def test_type_checkers_report_exactly_the_wrong_lines(checker):
    found, output = checker(PROGRAM)
    assert found == WRONG, output


@pytest.mark.parametrize("checker", CHECKERS)
def test_type_checkers_accept_the_programs_of_the_readme(checker):
    found, output = checker(*EXAMPLES)
    assert found == set(), output
