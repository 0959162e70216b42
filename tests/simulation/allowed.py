"""What breaks no promise in a plan, although the validators find it: they know no such faults."""

from tests.robustness.checker.violation import Violation
from tests.simulation.plan import Plan

CLOCK = (
    "too early",  # its time had come, and then the clock was set back
    "is shorter than its lease",  # which was renewed after the clock was set back
)
"""What is said of times where the service's clock is set."""


def is_allowed(violation: Violation, plan: Plan) -> bool:
    """Whether the contract allows it under the plan."""
    what = violation.what
    if "retain_deletions" in plan.settings and what.endswith("ended with OUT_OF_RANGE"):
        return True  # a watch that was away for longer than deletions are known starts again
    clock = any(fault.kind == "clock" for fault in plan.faults)
    return clock and any(text in what for text in CLOCK)
