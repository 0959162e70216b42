"""Judges the attempts of jobs as they are listed: they are those that workers made."""

from collections import defaultdict
from collections.abc import Iterator

from tests.checker.clock import earliest_between
from tests.checker.history import Attempt, History, Operation, Outcome, Record
from tests.checker.judge.violation import Violation
from tests.checker.judge.writing import GIVEN, RETRYABLE
from tests.checker.timeline import observations

WITHOUT_ITS_JOB = frozenset({"LEASE_EXPIRED", "RELEASED", "RETRIED"})
"""How an attempt ends whose job goes on."""

OUTCOMES = {
    "LEASE_EXPIRED": frozenset({"LEASE_EXPIRED"}),
    "QUEUE_EXPIRED": WITHOUT_ITS_JOB,
    "RUN_EXPIRED": WITHOUT_ITS_JOB | {"FAILED"},
    "CANCELLED": WITHOUT_ITS_JOB | {"FAILED"},
}
"""How the last attempt of a job ended that the service failed, by the reason."""

Key = tuple[str, int]

PATIENCE = 30.0
"""How many seconds a worker asks again."""


def check_attempts(history: History) -> Iterator[Violation]:
    """Every attempt that was made is listed, with its worker, its progress and how it ended."""
    workers: dict[Key, str] = {}
    released: set[Key] = set()
    for operation in history.operations:
        if operation.rpc in GIVEN and operation.told is not None:
            workers[operation.job_id, operation.told.attempt] = operation.told.worker
        if operation.rpc == "ReleaseJob" and operation.outcome is not Outcome.REFUSED:
            released.add((operation.job_id, operation.attempt))
        # A worker that is not answered for so long goes on without the job, and its next claim
        # says that it does not hold it.
        if operation.outcome is Outcome.UNKNOWN and operation.answered - operation.sent > PATIENCE:
            released.add((operation.job_id, operation.attempt))
    progress: dict[Key, int] = defaultdict(int)
    for job, _ in observations(history):
        key = job.job_id, job.attempt
        progress[key] = max(progress[key], job.progress)
    for job_id, record in history.records.items():
        numbers = [attempt.number for attempt in record.attempts]
        if numbers != list(range(1, record.job.attempt + 1)):
            what = f"{job_id} made {record.job.attempt} attempts, and {numbers} are listed"
            yield Violation("attempts", "lost", what)
            continue
        for attempt in record.attempts:
            key = job_id, attempt.number
            where = f"{job_id}: {attempt}"
            if attempt.worker != workers.get(key, attempt.worker):
                yield Violation("attempts", "wrong", f"{where} was given to {workers[key]}")
            if attempt.progress < progress[key]:
                yield Violation("attempts", "wrong", f"{where} had reached {progress[key]}")
            if attempt.outcome not in _outcomes(attempt, record):
                yield Violation("attempts", "wrong", f"{where} did not end in this way")
            # A server releases what it claimed for a worker and could not send.
            if attempt.outcome == "RELEASED" and key in workers.keys() - released:
                yield Violation("attempts", "wrong", f"{where} was not released")
            if attempt.outcome == "LEASE_EXPIRED" and _is_short(attempt, history):
                yield Violation("attempts", "wrong", f"{where} is shorter than its lease")
        if record.steps and record.steps[0].attempt != min(1, record.job.attempt):
            what = f"{job_id} began with attempt {record.steps[0].attempt}"
            yield Violation("attempts", "wrong", what)
    yield from _check_outages(history)
    yield from _check_retried(history)
    yield from _check_listed(history)
    yield from _check_held(history)


def _is_short(attempt: Attempt, history: History) -> bool:
    """Whether it ended sooner than a lease that was granted or renewed since it started."""
    end = attempt.start + round((attempt.seconds or 0.0) * 1e6)
    granted = earliest_between(attempt.start, end, history.jumps)
    return end < granted + history.lease * 1e6


def _check_outages(history: History) -> Iterator[Violation]:
    """No lease ends in an outage of the database, nor sooner than a lease after it."""
    if history.jumps:
        return
    for job_id, record in history.records.items():
        for attempt in record.attempts:
            if attempt.outcome != "LEASE_EXPIRED":
                continue
            end = attempt.start + round((attempt.seconds or 0.0) * 1e6)
            for began, ended in history.outages:
                if began < end < ended + history.lease * 1e6:
                    what = f"{job_id}: {attempt} ended {(end - ended) / 1e6:.3f} s after an outage"
                    yield Violation("attempts", "wrong", what)


def _check_retried(history: History) -> Iterator[Violation]:
    """An attempt that failed retryably is listed so, unless it ended its job; and no other one."""
    failed: dict[Key, Outcome] = {
        (operation.job_id, operation.attempt): operation.outcome
        for operation in history.operations
        if operation.rpc == RETRYABLE and operation.outcome is not Outcome.REFUSED
    }
    for job_id, record in history.records.items():
        for attempt in record.attempts:
            outcome = failed.get((job_id, attempt.number))
            where = f"{job_id}: {attempt}"
            if attempt.outcome == "RETRIED" and outcome is None:
                yield Violation("attempts", "wrong", f"{where} did not fail retryably")
            ended = attempt.number == record.job.attempt and record.ended_by
            expected = "FAILED" if ended else "RETRIED"
            if outcome is Outcome.ACKNOWLEDGED and attempt.outcome != expected:
                yield Violation("attempts", "lost", f"{where} failed retryably")


def _outcomes(attempt: Attempt, record: Record) -> frozenset[str]:
    """Return how the attempt may have ended."""
    if attempt.number < record.job.attempt:
        return WITHOUT_ITS_JOB
    by_its_worker = frozenset({record.job.status})
    if record.ended_by or not record.steps:
        return by_its_worker
    return OUTCOMES.get(record.steps[-1].reason, by_its_worker)


def _check_listed(history: History) -> Iterator[Violation]:
    """What is listed while a job is worked on is what is listed in the end."""
    for operation in history.operations:
        record = history.records.get(operation.job_id)
        if operation.rpc != "ListAttempts" or record is None:
            continue
        where = f"{operation.job_id} had the attempts {operation.attempts}"
        numbers = [attempt.number for attempt in operation.attempts]
        if numbers != list(range(1, len(numbers) + 1)) or len(numbers) < operation.attempt:
            yield Violation("attempts", "lost", f"{where} in attempt {operation.attempt}")
            continue
        for attempt, kept in zip(operation.attempts, record.attempts, strict=False):
            runs = not attempt.outcome and attempt.number == len(numbers)
            if not runs and attempt != kept:
                yield Violation("attempts", "wrong", f"{where}, and one became {kept}")


def _check_held(history: History) -> Iterator[Violation]:
    """Only a job in PROCESSING is held, from its claim on, and not after its release."""
    for job, _ in observations(history):
        if job.held and job.status != "PROCESSING":
            what = f"{job.job_id} is {job.status} and held"
            yield Violation("attempts", "wrong", what)
    for operation in history.operations:
        if (held := _is_held_after(operation)) is None or operation.told is None:
            continue
        if operation.told.held is not held and operation.told.status == "PROCESSING":
            what = f"{operation.job_id} after {operation.rpc}: held is {operation.told.held}"
            yield Violation("attempts", "wrong", what)


def _is_held_after(operation: Operation) -> bool | None:
    if operation.rpc in GIVEN:
        return True
    return False if operation.rpc in ("ReleaseJob", RETRYABLE) and operation.changed else None
