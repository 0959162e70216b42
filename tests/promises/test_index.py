"""The index has every promise of the page, and its breaks fit the product as it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.promises.index import INDEX, problems
from tests.promises.runs import judge


def test_each_promise_is_in_the_index_once_and_its_break_fits_the_product() -> None:
    assert not problems()


@pytest.mark.parametrize("number", [1, 51, 91], ids=["server", "client", "gateway"])
def test_a_process_with_the_folder_on_its_path_imports_the_break(
    tmp_path: Path, number: int
) -> None:
    bug = INDEX[number].bug
    bug.write(tmp_path)
    code = f"import {bug.name} as broken; print(broken.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    file = Path(done.stdout.strip())
    assert file.is_relative_to(tmp_path)
    assert file.read_text() == bug.source()


@pytest.mark.parametrize(
    ("code", "said", "found"),
    [
        (1, "F\n1 failed in 1.00s", True),
        (1, "1 failed, 1 error in 1.00s", True),
        (0, "1 passed in 1.00s", False),
        (1, "1 error in 1.00s", False),
        (2, "1 error in 1.00s", False),
        (4, "ERROR: not found: tests/unit/test_none.py", False),
        (5, "no tests ran in 0.10s", False),
    ],
)
def test_only_a_test_that_fails_has_found_a_break(code: int, said: str, *, found: bool) -> None:
    assert judge(code, said).found is found
