"""Type checkers accept right programs and refuse wrong ones, line by line."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.pages import ROOT

PROGRAMS = sorted(Path(__file__).parent.glob("typing/*.py"))
WRONG = {
    (program.name, number)
    for program in PROGRAMS
    for number, line in enumerate(program.read_text("utf-8").splitlines(), 1)
    if line.endswith("# wrong")
}
EXAMPLES = [ROOT / "examples/worker_and_watcher.py"]

pytestmark = pytest.mark.timeout(300)


@cache
def mypy(*files):
    """Return the lines with errors, as the names of their files and their numbers."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--hide-error-context"),
            *("--config-file", "", "--follow-imports", "silent"),
            *files,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROGRAMS[0].parent,
        env={"MYPYPATH": f"{ROOT}/client"},
    )
    assert run.returncode in {0, 1}, run.stderr
    found = re.findall(r"^(?:.*/)?(.+\.py):(\d+): error:", run.stdout, re.MULTILINE)
    return {(name, int(line)) for name, line in found}, run.stdout


def pyright(*files):
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable),
            *files,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROGRAMS[0].parent,
    )
    assert run.returncode in {0, 1}, run.stderr
    found = json.loads(run.stdout)["generalDiagnostics"]
    errors = [error for error in found if error["severity"] == "error"]
    lines = {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in errors}
    return lines, run.stdout


@pytest.mark.slow
def test_mypy_says_what_a_handler_may_return() -> None:
    _, output = mypy(*PROGRAMS, *EXAMPLES)
    lines = [line for line in output.splitlines() if "Coroutine[Any, Any, list[int]]" in line]
    assert len(lines) == 2, output
    for word in ("Outcome", "Mapping", "Typed", "None"):
        assert all(word in line for line in lines), output


# pyright fetches its program with npm.
CHECKERS = [
    pytest.param(mypy, marks=pytest.mark.slow),
    pytest.param(pyright, marks=pytest.mark.polyglot),
]


@pytest.mark.parametrize("checker", CHECKERS)
def test_type_checkers_report_exactly_the_wrong_lines_and_none_of_the_readme(checker):
    found, output = checker(*PROGRAMS, *EXAMPLES)
    assert found == WRONG, output
