"""The test on the page on simulated worlds finds its bug, and passes when it is mended."""

import re
from pathlib import Path

from tests.support.pages import ROOT, blocks
from tests.support.pytest_run import run_pytest

BROKEN, BANK = (block.text for block in blocks(ROOT / "docs/guides/simulation.md", "python"))
MENDED = re.sub(r"class Bank:.*?\n\n\n", BANK + "\n\n", BROKEN, flags=re.DOTALL).replace(
    'charge(job.parameters["amount"])', 'charge(job.parameters["amount"], key=job.id)'
)


def test_it_finds_the_handler_that_charges_twice_and_repeats_how(tmp_path: Path) -> None:
    (tmp_path / "test_order.py").write_text(BROKEN)
    found = run_pytest(tmp_path)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "assert [10, 10] == [10]" in found.stdout
    seed, hashed = re.findall(r"E +seed (\d+), hash (\w+)", found.stdout)[0]
    command = f"test_order.py::test_a_customer_is_charged_once --jobledger-seed {seed}"
    assert f"repeat: pytest {command}\n" in found.stdout
    again = run_pytest(tmp_path, *command.split())
    assert f"seed {seed}, hash {hashed}" in again.stdout


def test_its_mended_form_passes(tmp_path: Path) -> None:
    assert MENDED.count("key") == 3
    (tmp_path / "test_order.py").write_text(MENDED)
    run = run_pytest(tmp_path, "--jobledger-seeds", "10")
    assert run.returncode == 0, run.stdout + run.stderr
