"""Three replicas over one PostgreSQL, loaded and broken in every way: each promise is kept."""

import pytest
import uvloop

from tests.robustness.checker.faults import KINDS
from tests.robustness.checker.run import Options, run
from tests.robustness.checker.summary import describe, summarize
from tests.robustness.checker.validate import judge

SEED = 20_261_124


@pytest.mark.timeout(240)
def test_every_promise_is_kept_while_everything_breaks() -> None:
    """`make test-robustness` does the same for longer, with other seeds."""
    history = uvloop.run(run(Options(seed=SEED, duration=15.0)))
    violations, summary = judge(history), summarize(history)
    assert not any(violations.values()), describe(summary, violations)
    assert not summary.void, describe(summary, violations)
    # Or nothing was shown.
    assert set(summary.faults) >= set(KINDS)
    assert summary.deliveries > summary.changes
    assert summary.resumed > 50
