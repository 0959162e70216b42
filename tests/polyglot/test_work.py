"""From creation to every terminal state, with an owner and a worker in the same language."""

import json
from pathlib import Path

from jobledger.v1.error_reason_pb2 import ErrorReason
from jobledger.v1.job_pb2 import AttemptOutcome, JobStatus
from tests.polyglot.ledger import (
    Ledger,
    basic,
    job_in,
    limit_in,
    result_in,
    struct,
    transitions_in,
)
from tests.polyglot.programs import Event, Jobs, Program

QUEUED = JobStatus.JOB_STATUS_QUEUED
PROCESSING = JobStatus.JOB_STATUS_PROCESSING


def names(events: list[Event]) -> list[str]:
    return [event["event"] for event in events]


def test_a_job_is_created_done_watched_and_read(
    jobs: Jobs, ledger: Ledger, kind: str, tmp_path: Path
) -> None:
    given = {"frames": 240, "ratio": 1.5, "deep": {"list": [None, True, "x", {"y": -1}]}, "no": {}}
    made = {"frames": 240.0, "seconds": 12.25, "of": [given]}
    parameters, result = tmp_path / "parameters.json", tmp_path / "result.json"
    parameters.write_text(json.dumps(given), "utf-8")
    result.write_text(json.dumps(made), "utf-8")

    (created,) = jobs.run(
        "create", user=kind, type=kind, parameters=parameters, label=["a=1", "b=2=3"]
    )
    job = job_in(created)
    assert created["event"] == "created"
    assert ledger.get(job).parameters == struct(given)
    assert job == basic(ledger.get(job))
    assert (job.user_id, job.job_type, job.status) == (kind, kind, QUEUED)
    assert dict(job.labels) == {"a": "1", "b": "2=3"}

    worked = jobs.run("work", worker="wörker", type=kind, result=result, message="40 of 80")
    assert names(worked) == ["claimed", "progressed", "linked", "ended"]
    claimed, progressed, linked, ended = worked
    assert job_in(claimed).status == PROCESSING
    assert (job_in(claimed).attempt, job_in(claimed).worker_id) == (1, "wörker")
    assert job_in(claimed).parameters == struct(given)
    assert job_in(claimed).HasField("lease_expire_time")
    assert result_in(progressed).applied
    assert [result_in(linked).asset] == ledger.assets(job)
    assert result_in(linked).asset.storage_path == f"results/{job.id}/1"
    done = ledger.get(job)
    assert result_in(ended).version == done.version
    assert (done.status, done.progress_message) == (JobStatus.JOB_STATUS_COMPLETED, "40 of 80")
    assert done.result == struct(made)

    (changed,) = jobs.run("watch", user=kind, job=job.id)
    assert changed["event"] == "changed"
    assert job_in(changed) == ledger.get(job)
    assert transitions_in(changed) == ledger.transitions(job)

    (read,) = jobs.run("get", user=kind, job=job.id)
    assert read["event"] == "job"
    assert job_in(read) == ledger.get(job)


def test_a_job_finishes_partial_and_its_watcher_sees_what_is_missing(
    jobs: Jobs, ledger: Ledger, kind: str, tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    result.write_text('{"done": 3}', "utf-8")
    job = ledger.create(kind, job_type=kind)
    with jobs.start("watch", user=kind, job=job.id) as watcher:
        assert job_in(watcher.event()) == job
        worked = jobs.run(
            "work", worker="w", type=kind, outcome="partial", message="2 of 5", result=result
        )
        seen = [job_in(event) for event in watcher.finish()]
    assert names(worked)[-1] == "ended"
    assert seen[-1] == ledger.get(job)
    assert (seen[-1].status, seen[-1].progress) == (JobStatus.JOB_STATUS_PARTIAL, 100)
    assert (seen[-1].error.reason, seen[-1].error.message) == ("SOME_MISSING", "2 of 5")
    assert seen[-1].result == struct({"done": 3})


def test_a_retryable_failure_is_tried_again_and_the_next_attempt_completes(
    jobs: Jobs, ledger: Ledger, kind: str
) -> None:
    job = job_in(jobs.run("create", user=kind, type=kind, max_attempts=2)[0])
    assert job.retry_policy.max_attempts == 2
    with jobs.start("watch", user=kind, job=job.id) as watcher:
        first, *_ = jobs.run("work", worker="w", type=kind, outcome="retried", message="no disk")
        waiting = ledger.get(job)
        second, *_ = jobs.run("work", worker="w", type=kind, outcome="retried")
        seen = [job_in(event) for event in watcher.finish()]
    assert (job_in(first).attempt, job_in(first).last_error.reason) == (1, "")
    assert (waiting.status, waiting.held) == (PROCESSING, False)
    assert waiting.HasField("schedule_time")
    assert job_in(second).attempt == 2
    assert (job_in(second).last_error.reason, job_in(second).last_error.message) == (
        "NOT_DONE",
        "no disk",
    )
    assert seen[-1] == ledger.get(job)
    assert seen[-1].status == JobStatus.JOB_STATUS_COMPLETED
    assert [each.outcome for each in ledger.attempts(job)] == [
        AttemptOutcome.ATTEMPT_OUTCOME_RETRIED,
        AttemptOutcome.ATTEMPT_OUTCOME_COMPLETED,
    ]
    assert len(ledger.assets(job)) == 2


def test_a_higher_priority_goes_first(jobs: Jobs, ledger: Ledger, kind: str) -> None:
    created = [
        job_in(jobs.run("create", user=kind, type=kind, **options)[0])
        for options in ({"priority": 1}, {}, {"priority": 9})
    ]
    assert [job.priority for job in created] == [1, 5, 9]
    worked = [job_in(jobs.run("work", worker="w", type=kind)[0]) for _ in created]
    assert [job.id for job in worked] == [job.id for job in reversed(created)]


def test_a_job_whose_limit_is_reached_waits_for_the_one_that_is_held(
    jobs: Jobs, ledger: Ledger, kind: str
) -> None:
    (limited,) = jobs.run("limit", name=kind, max_running=1)
    assert limited["event"] == "limited"
    assert (limit_in(limited).name, limit_in(limited).max_running) == (kind, 1)
    key = f"{kind}:one"
    held, second = (
        job_in(jobs.run("create", user=kind, type=kind, concurrency_key=key)[0]) for _ in range(2)
    )
    other = ledger.create(kind, job_type=kind)
    ledger.start(held)
    # It is younger than the second one, and so it would go after it.
    assert job_in(jobs.run("work", worker="w", type=kind)[0]).id == other.id
    with jobs.start("work", worker="w", type=kind) as worker:
        ended = ledger.complete(held)
        claimed = job_in(worker.event())
        worker.finish()
    assert claimed.id == second.id
    assert claimed.start_time.ToMicroseconds() >= ended.complete_time.ToMicroseconds()

    (removed,) = jobs.run("limit", name=kind)
    assert not limit_in(removed).HasField("max_running")
    for _ in range(2):
        ledger.start(ledger.create(kind, job_type=kind, concurrency_key=key))


def test_a_worker_waits_for_work(program: Program, jobs: Jobs, ledger: Ledger, kind: str) -> None:
    if program.claims:
        assert jobs.run("work", worker="w", type=kind, wait=1) == [{"event": "idle"}]
    with jobs.start("work", worker="w", type=kind) as worker:
        ledger.create(kind, job_type=kind)
        assert names(worker.finish()) == ["claimed", "progressed", "linked", "ended"]


def test_an_update_that_is_refused_has_a_reason(
    program: Program, jobs: Jobs, ledger: Ledger, kind: str
) -> None:
    job = ledger.create(kind, job_type=kind)
    if program.claims:
        error = jobs.run("work", worker="w", type=kind, message="x" * 513, exit_code=1)[-1]
        assert error["reason"] == "INVALID_FIELD"
        return
    _, progressed, _, ended = jobs.run("work", worker="w", type=kind, message="x" * 513)
    assert result_in(progressed).error.reason == ErrorReason.ERROR_REASON_INVALID_FIELD
    # The others are applied.
    assert result_in(ended).version == ledger.get(job).version
    assert ledger.get(job).status == JobStatus.JOB_STATUS_COMPLETED
