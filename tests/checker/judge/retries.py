"""Judges jobs that are tried again: when, how often, from where, and repeated by one job."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from math import inf

from tests.checker.clients.board import BRIEF
from tests.checker.clock import had_shown
from tests.checker.history import History, Outcome, Snapshot
from tests.checker.judge.violation import Violation
from tests.checker.judge.writing import DELETIONS, GIVEN
from tests.checker.policies import INITIAL_BACKOFF, MAX_ATTEMPTS
from tests.checker.timeline import observations


def check_schedules(history: History) -> Iterator[Violation]:
    """No attempt starts before the service's clock had shown the time until which its job waited.

    That clock may have been set back in between. After a lost lease a job waits for its backoff.
    """
    due: dict[tuple[str, int], int] = {}
    first: dict[str, Snapshot] = {}
    for job, _ in observations(history):
        waits = not job.held and not job.terminal
        if waits and job.attempt:
            due[job.job_id, job.attempt + 1] = job.due
        # Updates may change the first time until the job starts. Then it stays.
        elif job.due and (job.job_id not in first or first[job.job_id].version < job.version):
            first[job.job_id] = job
    due |= {(job_id, 1): job.due for job_id, job in first.items()}
    for job_id, record in history.records.items():
        paused = 0
        for attempt in record.attempts:
            time = max(paused, due.get((job_id, attempt.number), 0))
            if attempt.start and not had_shown(time, by=attempt.start, jumps=history.jumps):
                early = (time - attempt.start) / 1e6
                what = f"{job_id}: attempt {attempt.number} started {early:.3f} s too early"
                yield Violation("scheduled", "wrong", what)
            lost = attempt.outcome == "LEASE_EXPIRED" and attempt.seconds is not None
            ended = attempt.start + round((attempt.seconds or 0.0) * 1e6)
            paused = ended + INITIAL_BACKOFF * 4 // 5 if lost else 0


def check_creations(history: History) -> Iterator[Violation]:
    """A job with a delay is due as long after its creation, and one that was there is told so."""
    for operation in history.operations:
        if operation.misdated:
            what = f"{operation} is due {operation.misdated} µs too late"
            yield Violation("scheduled", "wrong", what)
        found = operation.rpc == "ReturnExisting" or (
            operation.told is not None and operation.told.version > 1
        )
        if operation.existing is False and found:
            yield Violation("single", "wrong", f"{operation.job_id} was there before its creation")


def check_defaults(history: History) -> Iterator[Violation]:
    """A job has what its creation says, and the defaults of its type where that says nothing."""
    for operation in history.operations:
        if operation.misdefaulted:
            yield Violation("defaults", "wrong", f"{operation.job_id} {operation.misdefaulted}")
    for what in history.undefaulted:
        yield Violation("defaults", "lost", what)


def check_policies(history: History) -> Iterator[Violation]:
    """A job uses up no more attempts than its policy has, nor fewer before a lost lease ends it.

    Brief jobs are started by their ids: without a policy such an attempt is the last one.
    """
    for job_id, record in history.records.items():
        used = [attempt for attempt in record.attempts if attempt.outcome != "RELEASED"]
        by_id = record.job.job_type == BRIEF and not record.job.own_policy
        most = 1 if by_id else MAX_ATTEMPTS
        if len(used) > most:
            yield Violation("retried", "wrong", f"{job_id} used up {len(used)} attempts: {used}")
        reason = record.steps[-1].reason if record.steps else ""
        lost = bool(used) and used[-1].outcome == "LEASE_EXPIRED"
        if by_id and lost and reason not in ("LEASE_EXPIRED", "CANCELLED"):
            yield Violation("retried", "wrong", f"{job_id} waited for another attempt than {used}")
        gave_up = reason == "LEASE_EXPIRED"
        if gave_up and len(used) < most:
            yield Violation("retried", "wrong", f"{job_id} was given up after {used}")


def check_checkpoints(history: History) -> Iterator[Violation]:
    """An attempt goes on from the last checkpoint that was acknowledged, or from a later one."""
    reported: dict[str, list[tuple[int, str, Outcome]]] = defaultdict(list)
    for operation in history.operations:
        if operation.checkpoint and operation.outcome is not Outcome.REFUSED:
            entry = (operation.attempt, operation.checkpoint, operation.outcome)
            reported[operation.job_id].append(entry)
    for operation in history.operations:
        job = operation.told
        if operation.rpc not in GIVEN - {"StartJob"} or job is None:
            continue
        allowed = {""}
        # A worker reports one after the other; sorting is stable, and orders by the attempt alone.
        for attempt, mark, outcome in sorted(reported[job.job_id], key=lambda entry: entry[0]):
            if attempt < job.attempt:
                allowed = {mark} if outcome is Outcome.ACKNOWLEDGED else allowed | {mark}
        if job.checkpoint not in allowed:
            what = f"attempt {job.attempt} of {job.job_id} got {job.checkpoint!r}, not {allowed}"
            yield Violation("checkpoints", "wrong" if job.checkpoint else "lost", what)


def check_repetitions(history: History) -> Iterator[Violation]:
    """A job is repeated by one job at a time, which has its content."""
    seen: dict[str, float] = {}
    origins: dict[str, set[str]] = defaultdict(set)
    for job, at in observations(history):
        seen[job.job_id] = min(at, seen.get(job.job_id, at))
        if job.origin:
            origins[job.origin].add(job.job_id)
    deleted: dict[str, float] = {}
    for operation in history.operations:
        if operation.rpc in DELETIONS:
            deleted.setdefault(operation.job_id, operation.sent)
    for origin, found in origins.items():
        jobs = sorted(found, key=lambda job_id: seen[job_id])
        if any(deleted.get(job, inf) >= seen[after] for job, after in pairwise(jobs)):
            yield Violation("repeated", "duplicated", f"{origin} is repeated by {jobs}")
        record = history.records.get(origin)
        for job_id in jobs:
            repeat = history.records.get(job_id)
            if record and repeat and repeat.created_by != record.created_by:
                what = f"{job_id} repeats {origin} with the content of {repeat.created_by}"
                yield Violation("repeated", "wrong", what)
