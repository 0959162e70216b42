"""Runs the test of a promise, with the break or without it, in a process of its own."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.promises.entry import Entry
from tests.support.pages import ROOT

# Also tests that are marked as slow.
PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", ""]

WHY = {
    0: "the test passes",
    2: "the test cannot be collected",
    3: "pytest failed",
    4: "there is no such test",
    5: "there is no such test",
}


class Run(NamedTuple):
    """Whether a test found its break, and how, or why not."""

    found: bool
    how: str


def judge(code: int, output: str) -> Run:
    """Return what a run of pytest says of a break: only a test that fails has found it."""
    lines = output.splitlines()
    if code != 1:
        return Run(found=False, how=WHY.get(code, f"pytest ended with {code}"))
    if not re.search(r"\b\d+ failed\b", lines[-1] if lines else ""):
        return Run(found=False, how="an error before or after the test")
    causes = [line.partition(" - ")[2] for line in lines if line.startswith("FAILED ")]
    return Run(found=True, how=causes[0] if causes else "")


def without_breaks(tests: Sequence[str], *, jobs: int) -> str:
    """Run the tests on the product as it is; return what pytest says if one fails, else ""."""
    done = _pytest([*tests, "-n", str(jobs)], {})
    return done.stdout + done.stderr if done.returncode else ""


def with_break(entry: Entry) -> Run:
    """Run the test of an entry on a copy of the product with its break."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        entry.bug.write(folder)
        paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = _pytest([entry.test], {"PYTHONPATH": paths})
        if sys.pycache_prefix:  # nobody else imports the copy
            shutil.rmtree(Path(sys.pycache_prefix, *folder.parts[1:]), ignore_errors=True)
    return judge(done.returncode, done.stdout)


def _pytest(
    arguments: Sequence[str], environment: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PYTEST, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "400", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
