"""Failures that may be retried: how long a job waits, how often it is tried, and what is kept."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from jobledger_server.domain.commands import Claim, Expire, JobCommand, Release
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.errors import LeaseLost
from jobledger_server.domain.job import (
    AttemptOutcome,
    Instant,
    Job,
    JobError,
    JobId,
    JobStatus,
    Micros,
    Phase,
)
from jobledger_server.domain.leases import backoff
from jobledger_server.domain.limits import (
    MAX_ATTEMPTS,
    MAX_BACKOFF_MULTIPLIER,
    MAX_BACKOFF_SECONDS,
    MAX_INITIAL_BACKOFF_SECONDS,
    MIN_BACKOFF_SECONDS,
)
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import (
    ENDED_BY,
    ERROR,
    HELD,
    JOB_ID,
    LINK,
    NOW,
    QUEUE_TIMEOUT,
    QUEUED,
    SECOND,
    attempt_of,
    claim_due,
    ids,
    job_in,
    when_due,
)

FAILURE = replace(ENDED_BY[JobStatus.FAILED], attempt=1, retryable=True)
LEASE = Micros(5 * SECOND)

policies = st.builds(
    lambda initial, longer, multiplier: Job(
        id=JOB_ID,
        user_id="ada",
        job_type="render",
        create_time=NOW,
        update_time=NOW,
        queue_timeout=QUEUE_TIMEOUT,
        max_attempts=MAX_ATTEMPTS,
        initial_backoff=Micros(initial),
        max_backoff=Micros(max(initial, longer)),
        backoff_multiplier=multiplier,
    ),
    st.integers(int(MIN_BACKOFF_SECONDS * SECOND), MAX_INITIAL_BACKOFF_SECONDS * SECOND),
    st.integers(1, MAX_BACKOFF_SECONDS * SECOND),
    st.floats(1, MAX_BACKOFF_MULTIPLIER),
)


def decided(job: Job, command: JobCommand, now: int = NOW) -> Decision:
    return decide(job, command, now=Instant(now), new_id=ids())


def claimed(job: Job) -> Job:
    """Claim the job as soon as it is due."""
    command = Claim(worker_id="w", job_types=frozenset(), max_jobs=1, lease_duration=LEASE)
    decision = claim_due(job, command, when_due(job))
    assert decision is not None
    return decision.job


def pauses(job: Job, command: JobCommand, times: int) -> tuple[Job, list[float]]:
    """Claim the job and send the command, again and again; return the pauses in seconds."""
    found = []
    for _ in range(times):
        job = claimed(job)
        now = job.update_time + SECOND // 10
        job = decided(job, replace(command, attempt=job.attempt), now).job
        found.append((when_due(job) - now) / SECOND)
    return job, found


@given(policies, st.integers(1, MAX_ATTEMPTS))
def test_a_pause_is_drawn_from_eight_to_twelve_tenths_of_the_backoff(
    policy: Job, number: int
) -> None:
    longest = policy.max_backoff
    longer = 1.0
    for _ in range(number - 1):  # as one would by hand, and as far as it matters
        if policy.initial_backoff * longer < longest:
            longer *= policy.backoff_multiplier
    expected = min(policy.initial_backoff * longer, longest)
    pause = backoff(replace(policy, attempt=number))
    assert expected * 0.799999 - 1 <= pause <= expected * 1.200001


@settings(max_examples=25)
@given(policies)
def test_no_pause_is_shorter_than_the_one_before_but_for_its_jitter(policy: Job) -> None:
    # One attempt, and so one draw: the number of the retry is what is left without the releases.
    same_draw = [
        backoff(replace(policy, attempt=MAX_ATTEMPTS, releases=MAX_ATTEMPTS - number))
        for number in range(1, MAX_ATTEMPTS + 1)
    ]
    assert same_draw == sorted(same_draw)
    assert same_draw[0] >= 0.8 * policy.initial_backoff - 1
    assert same_draw[-1] <= 1.2 * policy.max_backoff


def test_the_pauses_of_jobs_that_failed_together_are_spread() -> None:
    """Also of jobs whose ids differ in little: they were created one after the other."""
    created = [JobId(f"01900000-0000-7000-8000-{number:012x}") for number in range(10_000)]
    drawn = [backoff(replace(job_in(HELD), id=each)) / SECOND for each in created]
    tenths = Counter(int((pause - 0.8) / 0.04) for pause in drawn)
    assert set(tenths) == set(range(10))
    assert all(900 < count < 1100 for count in tenths.values())
    assert len({round(pause, 4) for pause in drawn[:100]}) > 90


def test_a_retryable_failure_ends_the_attempt_and_not_the_job() -> None:
    job = replace(job_in(HELD), checkpoint_bytes=9)
    decision = decided(job, replace(FAILURE, progress=70, assets=(LINK,)))
    due = when_due(decision.job)
    assert NOW + 0.8 * SECOND <= due < NOW + 1.2 * SECOND
    assert decision == Decision(
        job=replace(
            job,
            phase=Phase.SCHEDULED,
            worker_id="",
            progress=70,
            asset_count=1,
            asset_bytes=LINK.text_bytes,
            last_error=ERROR,
            lease_duration=None,
            lease_expire_time=None,
            retry_time=due,
            queue_expire_time=Instant(due + QUEUE_TIMEOUT),
            update_time=NOW,
            version=4,
        ),
        ended=attempt_of(replace(job, progress=70), AttemptOutcome.RETRIED, NOW, ERROR),
        assets=decision.assets,
    )
    assert [asset.link for asset in decision.assets] == [LINK]
    assert claimed(decision.job).checkpoint_bytes == 9


@pytest.mark.parametrize("max_attempts", [1, 2, 5])
def test_lost_leases_stalls_and_failures_use_up_the_same_attempts(max_attempts: int) -> None:
    job = replace(job_in(QUEUED), max_attempts=max_attempts, stall_timeout=Micros(SECOND))
    waited: list[float] = []
    for number in range(max_attempts):
        job = claimed(job)
        if number % 2:
            job = decided(job, replace(FAILURE, attempt=job.attempt), job.update_time).job
        else:
            job = decided(job, Expire(job_id=JOB_ID), job.update_time + 9 * SECOND).job
        waited.append((when_due(job) - job.update_time) / SECOND)
    assert (job.status, job.attempt) == (JobStatus.FAILED, max_attempts)
    for number, pause in enumerate(waited[:-1]):
        assert 0.8 * 2**number <= pause < 1.2 * 2**number


def test_a_failure_is_repeated_until_the_job_is_claimed() -> None:
    """Its first response may have been lost. Its delay is that of the first."""
    job = decided(job_in(HELD), replace(FAILURE, assets=(LINK,))).job
    late = NOW + 10 * SECOND
    for again in (FAILURE, replace(FAILURE, retry_delay=Micros(9)), replace(FAILURE, attempt=None)):
        assert decided(job, replace(again, assets=(LINK,)), late) == Decision(
            job=job, changed=False
        )
    for other in (replace(FAILURE, retryable=False), replace(FAILURE, error=JobError("X", "x"))):
        with pytest.raises(LeaseLost):
            decided(job, other, late)
    with pytest.raises(LeaseLost):
        decided(claimed(job), FAILURE, late)


def test_a_short_delay_does_not_make_quick_releases_a_loop() -> None:
    release = Release(job_id=JOB_ID, attempt=0, delay=Micros(SECOND // 2))
    _, waited = pauses(job_in(QUEUED), release, 12)
    assert waited[0] == 0.5
    assert waited[-1] > 240


def test_a_release_that_asks_for_the_first_backoff_or_more_waits_for_that() -> None:
    release = Release(job_id=JOB_ID, attempt=0, delay=Micros(SECOND))
    job, waited = pauses(job_in(QUEUED), release, 9)
    assert waited == [1] * 9
    assert job.quick_releases == 0


def test_a_release_after_a_lease_or_another_end_begins_anew() -> None:
    release = Release(job_id=JOB_ID, attempt=0)
    quick, _ = pauses(job_in(QUEUED), release, 5)
    held = claimed(quick)
    slow = decided(held, replace(release, attempt=held.attempt), held.update_time + LEASE).job
    assert (slow.quick_releases, slow.retry_time) == (0, None)
    retried, _ = pauses(quick, FAILURE, 1)
    for job in (slow, retried):
        _, waited = pauses(job, release, 2)
        assert waited[0] == 0
        assert 0.8 <= waited[1] < 1.2


def test_releases_do_not_lengthen_the_pause_before_a_retry() -> None:
    job, _ = pauses(job_in(QUEUED), Release(job_id=JOB_ID, attempt=0), 9)
    _, waited = pauses(job, FAILURE, 1)
    assert 0.8 <= waited[0] < 1.2
