"""Judges which signals workers received of the jobs that they held on streams of Work."""

from collections import defaultdict
from collections.abc import Iterator

from tests.checker.history import Fault, History, Hold, Operation, Outcome
from tests.checker.judge.violation import Violation
from tests.checker.judge.writing import ENDS, RETRYABLE

DELIVERY_SECONDS = 2.0
"""A cancellation reaches the worker within so long after its answer, if nothing is broken."""

RECOVERY_SECONDS = 5.0
"""After this time a failure has no effect any more."""


def check_cancellations(history: History) -> Iterator[Violation]:
    """A cancellation reaches the worker that holds the job, also over its next stream."""
    holds: dict[tuple[str, int], list[Hold]] = defaultdict(list)
    for hold in history.holds:
        holds[hold.job_id, hold.attempt].append(hold)
    for operation in history.operations:
        job = operation.told
        asked = operation.rpc == "CancelJob" and operation.outcome is Outcome.ACKNOWLEDGED
        if asked and job is not None and not job.terminal:
            for hold in holds[job.job_id, job.attempt]:
                if not _heard(hold, operation, history.faults):
                    what = f"{hold.worker} received no cancellation of {job.job_id}"
                    yield Violation("cancelled", "lost", what)


def check_losses(history: History) -> Iterator[Violation]:
    """A worker whose update ends its attempt is sent the result, and not that it lost the job."""
    lost = {(hold.job_id, hold.attempt): hold.ended for hold in history.holds if hold.lost}
    for operation in history.operations:
        ends = operation.rpc in ENDS | {RETRYABLE, "ReleaseJob"}
        told = lost.get((operation.job_id, operation.attempt))
        record = history.records.get(operation.job_id)
        outcomes = {each.number: each.outcome for each in record.attempts} if record else {}
        if operation.rpc == "ReleaseJob" and outcomes.get(operation.attempt) != "RELEASED":
            continue  # the lease had expired: the job waits, as it does for a repeated release
        if ends and operation.changed and told is not None and operation.sent < told:
            what = f"attempt {operation.attempt} of {operation.job_id} was lost"
            yield Violation("attempts", "wrong", f"{what}, and ended by {operation.rpc}")


def _heard(hold: Hold, cancellation: Operation, faults: list[Fault]) -> bool:
    """Whether the worker received it in time, or needed no signal."""
    if hold.finishing:
        return True  # the worker is sent the result of its finish
    began = hold.began
    if hold.resumed:
        # The first message of a stream has what is to be known of the jobs that it begins with.
        if hold.greeted is None or (hold.ended is not None and hold.ended <= hold.greeted):
            return True
        if hold.began > cancellation.answered:
            return hold.asked is not None and hold.asked <= hold.greeted
        began = hold.greeted
    deadline = max(cancellation.answered, began) + DELIVERY_SECONDS
    if hold.asked is not None and hold.asked <= deadline:
        return True
    gone = hold.ended is not None and hold.ended <= deadline
    broken = any(
        fault.began <= deadline
        and (not fault.recovers_from or fault.recovers_from + RECOVERY_SECONDS > cancellation.sent)
        for fault in faults
    )
    return gone or broken or hold.frozen
