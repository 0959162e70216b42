"""Jobs that are run again, and many that are changed at once, against the real server."""

import threading
import uuid

from jobledger import (
    AsyncClient,
    Client,
    JobStatus,
    NewJob,
)

MANY = 300


def create(client, count, **options):
    """Create jobs; return their ids."""
    return [job.id for job in client.create_jobs([NewJob("render", **options)] * count)]


def ids(jobs):
    return [job.id for job in jobs]


def test_hundreds_of_jobs_are_cancelled_run_again_and_deleted_in_steps(client):
    old = create(client, MANY)
    steps = []
    result = client.cancel_jobs("not needed", job_types=["render"], on_progress=steps.append)
    assert (result.matched, result.changed) == (MANY, MANY)
    assert [step.changed for step in steps] == [*range(100, MANY + 1, 100)]
    assert steps[-1] is result
    assert ids(result.sample) == old[: -10 - 1 : -1]
    assert {job.cancel_reason for job in result.sample} == {"not needed"}

    assert client.rerun_jobs(all_jobs=True, validate_only=True).matched == 0
    counted = client.rerun_jobs(cancelled=True, validate_only=True)
    assert (counted.matched, counted.changed) == (MANY, 0)
    assert ids(counted.sample) == ids(result.sample)
    result = client.rerun_jobs(error_reasons=["CANCELLED"])
    assert (result.matched, result.changed) == (MANY, MANY)
    assert [job.origin_job_id for job in result.sample] == ids(counted.sample)
    new = list(client.list_jobs(statuses=[JobStatus.QUEUED], page_size=1000))
    assert sorted(job.origin_job_id for job in new) == old
    assert client.rerun_jobs(all_jobs=True).matched == 0

    assert client.delete_jobs(labels={"no": "such"}).matched == 0
    result = client.delete_jobs(all_jobs=True)
    assert (result.matched, result.changed, result.sample) == (MANY, MANY, ())
    assert {*ids(client.list_jobs(page_size=1000))} == {*ids(new)}


async def test_the_async_client_changes_many_jobs_too(server):
    async with AsyncClient(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        await client.create_jobs([NewJob("render")] * 250)
        seen = []

        async def show(step):
            seen.append(step.changed)

        assert (await client.cancel_jobs(all_jobs=True, on_progress=show)).changed == 250
        assert seen == [100, 200, 250]
        counted = await client.delete_jobs(all_jobs=True, validate_only=True)
        assert (counted.matched, counted.changed, len(counted.sample)) == (250, 0, 10)


def test_a_call_goes_on_when_the_server_that_was_killed_in_the_middle_is_back(own_server):
    with Client(own_server.target, user_id="ada") as client:
        old = create(client, 250)
        client.cancel_jobs(all_jobs=True)
        restarts = []

        def kill_once(_result):
            if not restarts:
                own_server.kill()
                restarts.append(threading.Thread(target=own_server.start))
                restarts[0].start()

        result = client.rerun_jobs(cancelled=True, on_progress=kill_once)
        restarts[0].join()
        assert (result.matched, result.changed) == (250, 250)
        new = client.list_jobs(statuses=[JobStatus.QUEUED], page_size=1000)
        assert sorted(job.origin_job_id for job in new) == old
