"""Jobs that are run again, and many that are changed at once, against the real server."""

import itertools
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from jobledger import (
    AsyncClient,
    Client,
    IllegalTransition,
    JobError,
    JobNotDue,
    JobNotFound,
    JobStatus,
    NewJob,
    RetryPolicy,
)

MANY = 1200


@pytest.fixture
def client(server):
    with Client(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        yield client


def create(client, count, **options):
    """Create jobs; return their ids."""
    made = []
    while len(made) < count:
        some = [NewJob("render", **options)] * min(count - len(made), 1000)
        made += client.create_jobs(some)
    return [job.id for job in made]


def ids(jobs):
    return [job.id for job in jobs]


def test_a_failed_job_is_run_again_as_a_new_one_and_always_the_same(client):
    policy = RetryPolicy(max_attempts=3, initial_backoff=0.5, max_backoff=60, backoff_multiplier=3)
    old = client.create_job(
        "render",
        {"scene": "castle"},
        labels={"team": "a"},
        retry_policy=policy,
        stall_timeout=90,
    )
    with pytest.raises(IllegalTransition):
        client.retry_job(old.id)
    client.cancel_job(old.id)
    new = client.retry_job(old.id)
    assert client.retry_job(old.id) == new
    assert (new.status, new.origin_job_id, new.attempt) == (JobStatus.QUEUED, old.id, 0)
    new = client.get_job(new.id)
    assert (new.job_type, new.parameters, new.labels) == (
        "render",
        {"scene": "castle"},
        {"team": "a"},
    )
    assert (new.retry_policy, new.stall_timeout) == (old.retry_policy, old.stall_timeout)
    assert client.get_job(old.id).status is JobStatus.FAILED
    with pytest.raises(JobNotFound):
        client.retry_job(old.id, user_id="somebody-else")


def test_lists_find_jobs_by_reason_by_origin_and_by_whether_a_worker_holds_them(client):
    held, full, other = create(client, 3)
    client.start_job(held)
    for job_id, reason in ((full, "DISK_FULL"), (other, "OTHER")):
        client.start_job(job_id)
        client.mark_failed(job_id, "no", reason=reason, attempt=1)
    again = client.retry_job(full)
    assert ids(client.list_jobs(error_reasons=["DISK_FULL"])) == [full]
    assert ids(client.list_jobs(error_reasons=["DISK_FULL", "OTHER"])) == [other, full]
    assert ids(client.list_jobs(origin_job_id=full)) == [again.id]
    assert ids(client.list_jobs(held=True)) == [held]
    assert ids(client.list_jobs(held=False)) == [again.id, other, full]


def test_thousands_of_jobs_are_cancelled_run_again_and_deleted_in_steps(client):
    old = create(client, MANY)
    steps = []
    result = client.cancel_jobs("not needed", job_types=["render"], on_progress=steps.append)
    assert (result.matched, result.changed) == (MANY, MANY)
    assert [step.changed for step in steps] == [*range(100, MANY + 1, 100)]
    assert steps[-1] is result
    assert ids(result.sample) == old[: -10 - 1 : -1]
    assert {job.cancel_reason for job in result.sample} == {"not needed"}

    counted = client.retry_jobs(validate_only=True)
    assert (counted.matched, counted.changed) == (MANY, 0)
    assert ids(counted.sample) == ids(result.sample)
    result = client.retry_jobs(error_reasons=["CANCELLED"])
    assert (result.matched, result.changed) == (MANY, MANY)
    assert [job.origin_job_id for job in result.sample] == ids(counted.sample)
    new = list(client.list_jobs(statuses=[JobStatus.QUEUED], page_size=1000))
    assert sorted(job.origin_job_id for job in new) == old
    assert client.retry_jobs().matched == 0

    assert client.delete_jobs(labels={"no": "such"}).matched == 0
    result = client.delete_jobs()
    assert (result.matched, result.changed, result.sample) == (MANY, MANY, ())
    assert {*ids(client.list_jobs(page_size=1000))} == {*ids(new)}


async def test_the_async_client_changes_many_jobs_too(server):
    async with AsyncClient(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        await client.create_jobs([NewJob("render")] * 250)
        seen = []

        async def show(step):
            seen.append(step.changed)

        assert (await client.cancel_jobs(on_progress=show)).changed == 250
        assert seen == [100, 200, 250]
        counted = await client.delete_jobs(validate_only=True)
        assert (counted.matched, counted.changed, len(counted.sample)) == (250, 0, 10)


def test_a_pace_is_kept_over_steps(client):
    create(client, 250)
    client.cancel_jobs()
    before = datetime.now(UTC)
    assert client.retry_jobs(jobs_per_second=50).changed == 250
    new = client.list_jobs(statuses=[JobStatus.QUEUED], page_size=1000)
    times = sorted(job.schedule_time for job in new)
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(times)]
    assert gaps == pytest.approx([0.02] * 249, abs=1e-4)
    assert times[0] > before


def test_what_was_stopped_in_the_middle_goes_on_with_the_same_call(client):
    old = create(client, 250)
    client.cancel_jobs()

    def stop(_result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.retry_jobs(on_progress=stop)
    assert len(list(client.list_jobs(statuses=[JobStatus.QUEUED]))) == 100
    assert client.retry_jobs().changed == 150
    new = client.list_jobs(statuses=[JobStatus.QUEUED], page_size=1000)
    assert sorted(job.origin_job_id for job in new) == old


def test_a_call_goes_on_when_the_server_that_was_killed_in_the_middle_is_back(own_server):
    with Client(own_server.target, user_id="ada") as client:
        old = create(client, 250)
        client.cancel_jobs()
        restarts = []

        def kill_once(_result):
            if not restarts:
                own_server.kill()
                restarts.append(threading.Thread(target=own_server.start))
                restarts[0].start()

        result = client.retry_jobs(on_progress=kill_once)
        restarts[0].join()
        assert (result.matched, result.changed) == (250, 250)
        new = client.list_jobs(statuses=[JobStatus.QUEUED], page_size=1000)
        assert sorted(job.origin_job_id for job in new) == old


def test_a_job_that_is_scheduled_cannot_be_started_before(client):
    due = datetime.now(UTC).replace(microsecond=5) + timedelta(days=1)
    job = client.create_job("render", schedule_time=due)
    assert job.schedule_time == due
    with pytest.raises(JobNotDue) as raised:
        client.start_job(job.id)
    assert raised.value.schedule_time == due


def test_a_failure_that_may_pass_leaves_the_job_waiting_with_its_checkpoint(client):
    job = client.create_job("render", retry_policy=RetryPolicy(max_attempts=2))
    client.start_job(job.id)
    client.update_progress(job.id, 40, checkpoint={"frame": 96}, attempt=1)
    error = JobError("no answer", reason="TIMEOUT")
    before = datetime.now(UTC)
    paused = client.mark_failed(job.id, error, attempt=1, retryable=True, retry_delay=3600)
    assert paused.is_waiting
    assert paused.last_error == error
    assert paused.schedule_time > before + timedelta(minutes=59)
    assert client.get_job(job.id).checkpoint == {"frame": 96}


def test_a_job_that_is_released_with_a_delay_waits_for_it(client):
    job = client.start_job(client.create_job("render").id)
    before = datetime.now(UTC)
    released = client.release_job(job.id, 1, delay=timedelta(hours=1))
    assert released.is_waiting
    assert released.schedule_time > before + timedelta(minutes=59)
