"""Every benchmark that `make` names starts, and says what it measures."""

import re
import subprocess
import sys

import pytest

from tests.support.pages import ROOT

BENCHMARKS = re.findall(r"\$\(PYTHON\) -m (benchmarks\.\S+)", (ROOT / "Makefile").read_text())


def test_make_has_the_benchmarks() -> None:
    assert "benchmarks.bench" in BENCHMARKS


@pytest.mark.parametrize("program", BENCHMARKS)
def test_a_benchmark_starts_and_explains_itself(program: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", program, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert "usage:" in run.stdout
