"""Three replicas over one PostgreSQL, loaded and broken in every way: each promise is kept."""

import pytest
import uvloop

from tests.checker.faults import KINDS
from tests.checker.judge.validate import judge
from tests.checker.run import Options, run
from tests.checker.summary import describe, summarize
from tests.checker.timeline import observations
from tests.support.seed import SEED


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_guarantee_holds_under_load_and_injected_failures() -> None:
    """`make test-robustness` does the same for longer."""
    history = uvloop.run(run(Options(seed=SEED, duration=15.0)))
    violations, summary = judge(history), summarize(history)
    found = describe(summary, violations)
    assert not any(violations.values()), found
    assert not summary.void, found
    # Else the run has tested nothing.
    assert set(summary.faults) >= set(KINDS), found
    assert summary.deliveries > summary.changes, found
    assert summary.resumed > 50, found
    assert len(history.holds) > 100, found
    assert set(summary.attempts) >= {"COMPLETED", "LEASE_EXPIRED", "RELEASED", "RETRIED"}, found
    assert summary.repeated > 0, found
    assert any(operation.checkpoint for operation in history.operations), found
    assert any(job.due for job, _ in observations(history)), found
    assert any(hold.resumed for hold in history.holds), found
    assert summary.recounts > 10, found
    assert summary.keyed > 0, found
    assert summary.settings > 0, found
    assert not summary.unused, found
    assert not summary.not_made, found
