"""What breaks no promise in a plan, although the validators find it: they know no such settings."""

from tests.checker.judge.violation import Violation
from tests.simulation.plan import Plan


def is_allowed(violation: Violation, plan: Plan) -> bool:
    """Whether the contract allows it under the plan."""
    # A watch that was away for longer than deletions are known starts again.
    return "retain_deletions" in plan.settings and violation.what.endswith(
        "ended with OUT_OF_RANGE"
    )
