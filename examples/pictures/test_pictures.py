"""Tests of the handler, without a server."""

from pathlib import Path

import picture_worker
import pytest
from picture_task import Picture

from jobledger import Failed
from jobledger.testing import run_handler


def test_a_picture_is_a_png_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_worker, "FOLDER", tmp_path)
    run = run_handler(picture_worker.render_picture, Picture(width=8, height=5))
    (asset,) = run.assets
    assert Path(asset.storage_path).read_bytes().startswith(b"\x89PNG")
    assert [report.progress for report in run.reports] == [0, 20, 40, 60, 80]


def test_a_picture_that_is_too_large_fails() -> None:
    run = run_handler(picture_worker.render_picture, Picture(4000, 4000))
    assert run.outcome == Failed("more than 4000000 pixels", "TOO_LARGE")
