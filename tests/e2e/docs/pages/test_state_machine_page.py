"""The page on the state machine shows what the code does."""

import subprocess
import sys
from pathlib import Path

from tests.support.pages import ROOT

SCRIPT = ROOT / "scripts/draw_state_machine.py"


def draw(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_committed_page_is_up_to_date() -> None:
    run = draw("--check")
    assert run.returncode == 0, run.stderr


def test_a_stale_or_missing_page_is_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert draw(str(page)).returncode == 0
    assert draw("--check", str(page)).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert "{{" not in text, "a placeholder was left"
    page.write_text(text.replace("`LEASE_LOST`", "unchanged"), encoding="utf-8")
    for stale in (page, tmp_path / "missing.md"):
        run = draw("--check", str(stale))
        assert run.returncode == 1
        assert "differs from what the code does" in run.stderr
        assert "make docs" in run.stderr
