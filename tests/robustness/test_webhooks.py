"""The run of webhooks.py, for a minute."""

import random
from pathlib import Path

import pytest

from tests.robustness.webhooks import run
from tests.support.seed import SEED


@pytest.mark.slow
@pytest.mark.timeout(420)
async def test_no_end_is_lost_or_out_of_order_while_everything_fails(tmp_path: Path) -> None:
    report = await run(60, random.Random(SEED).randrange(1_000_000), tmp_path)
    assert not report.violations, report.text()
    assert report.jobs > 100, report.text()
