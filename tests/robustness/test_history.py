"""Three replicas over one PostgreSQL, loaded and broken in every way: each promise is kept."""

import os
import random

import pytest
import uvloop

from tests.robustness.checker.faults import KINDS
from tests.robustness.checker.run import Options, run
from tests.robustness.checker.summary import describe, summarize
from tests.robustness.checker.validate import judge

SEED = "JOBLEDGER_TEST_SEED"
"""The environment variable that gives a seed, to run a history again."""


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> int:
    """The given seed, or a new one; printed in any case."""
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(2**32))
    with capsys.disabled():
        print(f"\nhistory of {SEED}={seed}")  # noqa: T201
    return seed


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_guarantee_holds_under_load_and_injected_failures(seed: int) -> None:
    """`make test-robustness` does the same for longer."""
    history = uvloop.run(run(Options(seed=seed, duration=15.0)))
    violations, summary = judge(history), summarize(history)
    found = f"{SEED}={seed}\n{describe(summary, violations)}"
    assert not any(violations.values()), found
    assert not summary.void, found
    # Else the run has tested nothing.
    assert set(summary.faults) >= set(KINDS), found
    assert summary.deliveries > summary.changes, found
    assert summary.resumed > 50, found
    assert len(history.holds) > 100, found
    assert any(hold.resumed for hold in history.holds), found
