"""Both clients against the real server."""

import uuid
from datetime import timedelta

import pytest

from jobledger import (
    Asset,
    AssetNameTaken,
    AsyncClient,
    ConcurrencyLimitReached,
    InvalidField,
    JobError,
    JobNotFound,
    JobStatus,
    JobView,
    LimitReached,
    NewJob,
    Paused,
    RetryPolicy,
    TypePaused,
    UniqueKeyTaken,
    UniquePolicy,
)

PROCESSING = JobStatus.PROCESSING
COMPLETED = JobStatus.COMPLETED
FAILED = JobStatus.FAILED


@pytest.fixture
def running(client):
    return client.start_job(client.create_job("render").id)


def test_a_job_lives_from_creation_to_deletion(client):
    job = client.create_job("render", {"scene": {"frames": [1, 2]}}, labels={"team": "a"})
    assert (job.status, job.version, dict(job.labels)) == (
        JobStatus.QUEUED,
        1,
        {"team": "a"},
    )
    assert client.get_job(job.id) == job
    assert client.get_job(job.id).parameters == {"scene": {"frames": [1, 2]}}

    started = client.start_job(job.id)
    assert (started.status, started.attempt, started.worker_id) == (PROCESSING, 1, client.worker_id)
    assert started.held
    answer = client.update_progress(job.id, 40, progress_message="on it", attempt=1)
    assert (answer.applied, answer.job.progress, answer.job.progress_message) == (True, 40, "on it")
    lower = client.update_progress(job.id, 30, progress_message="again", attempt=1)
    assert (lower.applied, lower.job.progress, lower.job.progress_message) == (True, 40, "again")

    asset = client.create_asset(
        job.id,
        "image/png",
        url="https://example.com/a.png",
        file_size=7,
        sha256="0F" * 32,
        etag='"1"',
        attempt=1,
    )
    assert (asset.name, asset.sha256, asset.etag) == ("a.png", "0f" * 32, '"1"')
    with pytest.raises(AssetNameTaken) as taken:
        client.create_asset(job.id, "text/plain", storage_path="b", name="a.png", attempt=1)
    assert taken.value.name == "a.png"
    more = Asset("text/plain", storage_path="logs/1")
    done = client.mark_completed(job.id, {"frames": 2}, assets=[more], attempt=1)
    assert (done.status, done.progress, done.held) == (COMPLETED, 100, False)
    assert client.get_job(job.id).result == {"frames": 2}
    assert not client.update_progress(job.id, 50, attempt=1).applied
    assert [made.asset_type for made in client.list_assets(job.id)] == ["image/png", "text/plain"]
    assert next(client.list_assets(job.id)) == asset
    assert [step.to_status for step in client.list_transitions(job.id)] == [PROCESSING, COMPLETED]
    waited = client.wait(job.id)
    assert (waited, waited.parameters, waited.result) == (
        done,
        {"scene": {"frames": [1, 2]}},
        {"frames": 2},
    )

    linked = list(client.list_assets(job.id))
    with client.watch_jobs() as news:
        assert next(news).synced
        assert client.delete_job(job.id) == tuple(linked)
        assert next(news).deleted_assets == tuple(linked)
    with pytest.raises(JobNotFound):
        client.get_job(job.id)


VIEWS = [(JobView.BASIC, (None, None, None)), (JobView.FULL, ({"a": 1}, {"b": 2}, {"c": 3}))]


@pytest.mark.parametrize(("view", "payloads"), VIEWS)
def test_a_view_says_whether_payloads_are_read(client, view, payloads):
    job = client.start_job(client.create_job("render", {"a": 1}).id)
    error = JobError("no", reason="NO", details={"c": 3})
    written = client.mark_failed(job.id, error, result={"b": 2}, attempt=1)
    read = [
        client.get_job(job.id, view=view),
        client.get_jobs([job.id], view=view)[job.id],
        *client.list_jobs(view=view),
        *(change.job for change in client.watch(job.id, view=view)),
    ]
    assert [(each.parameters, each.result, each.error.details) for each in read] == [payloads] * 4
    assert (written.parameters, written.result, written.error.details) == (None, None, None)


def test_created_jobs_are_returned_in_order_with_all_their_fields(client):
    jobs = client.create_jobs(
        NewJob(
            f"t{i}",
            {"n": i},
            labels={"n": str(i)},
            retry_policy=RetryPolicy(max_attempts=i + 1),
            queue_timeout=timedelta(minutes=i + 1),
            run_timeout=i + 1.5,
        )
        for i in range(300)
    )
    assert [job.job_type for job in jobs] == [f"t{i}" for i in range(300)]
    last = jobs[-1]
    assert (last.parameters, last.labels["n"]) == (None, "299")
    assert last.retry_policy.max_attempts == 300
    waits = last.queue_expire_time - last.create_time
    assert waits == timedelta(minutes=300)
    listed = client.list_jobs(page_size=1000, view=JobView.FULL)
    assert [job.parameters for job in listed] == [{"n": i} for i in reversed(range(300))]


def test_jobs_are_read_by_their_ids(client):
    jobs = client.create_jobs([NewJob("render")] * 1000) + client.create_jobs([NewJob("zip")] * 5)
    theirs = client.create_job("render", user_id="another").id
    ids = [job.id for job in jobs]
    found = client.get_jobs([theirs, *reversed(ids), str(uuid.uuid4()), ids[0]])
    assert [*found] == ids[::-1]
    assert found[ids[3]] == jobs[3]
    assert client.get_jobs([]) == {}
    with pytest.raises(InvalidField):
        client.get_jobs([ids[0], ""])


def test_more_payloads_than_an_answer_may_have_are_read(client):
    jobs = client.create_jobs([NewJob("render", {"a": "x" * 250_000})] * 4)
    jobs += [client.create_job("render", {"a": "x" * 250_000}) for _ in range(12)]
    found = client.get_jobs([job.id for job in jobs], view=JobView.FULL)
    assert [len(job.parameters["a"]) for job in found.values()] == [250_000] * 16


def test_watching_yields_every_step_and_ends(client, running):
    news = client.watch(running.id)
    first = next(news)
    assert first.job == running
    assert [step.to_status for step in first.transitions] == [PROCESSING]
    client.update_progress(running.id, 50, attempt=1)
    assert next(news).job.progress == 50
    client.mark_completed(running.id, attempt=1)
    rest = list(news)
    assert rest[-1].job.status == COMPLETED
    assert [step.to_status for message in rest for step in message.transitions] == [COMPLETED]


def test_a_client_with_more_watches_than_a_connection_has_streams_still_makes_calls(client):
    job = client.create_job("render")
    watches = [client.watch(job.id) for _ in range(120)]
    assert {next(watch).job.id for watch in watches} == {job.id}
    client.cancel_job(job.id)
    assert {[*watch][-1].job.status for watch in watches} == {FAILED}


def test_an_operator_sets_a_limit_and_a_pause_and_sees_why_a_job_waits(client):
    kind, key = f"t{uuid.uuid4().hex[:12]}", f"k{uuid.uuid4().hex[:12]}"
    runs, waits = (client.create_job(kind, concurrency_key=f"{key}:7") for _ in range(2))
    assert client.admin.set_concurrency_limit(key, 1).max_running == 1
    client.start_job(runs.id)
    with pytest.raises(ConcurrencyLimitReached):
        client.start_job(waits.id)
    pause = client.admin.pause_job_type(kind, "deploy")
    with pytest.raises(Paused):
        client.start_job(waits.id)

    explanation = client.explain_job(waits.id)
    assert explanation.job == waits
    assert {
        TypePaused(job_type=kind, pause=pause),
        LimitReached(
            concurrency_key=f"{key}:7", running=1, max_running=1, holder_job_ids=(runs.id,)
        ),
    } <= set(explanation.reasons)
    (stats,) = client.admin.list_job_type_stats([kind])
    assert (stats.held, stats.ready + stats.blocked, stats.pause) == (1, 1, pause)
    limits = {limit.name: limit for limit in client.admin.list_concurrency_limits(page_size=1)}
    assert (limits[key].max_running, limits[key].running) == (1, 1)

    client.admin.resume_job_type(kind)
    assert client.admin.remove_concurrency_limit(key).max_running is None
    assert client.start_job(waits.id).held
    assert client.explain_job(waits.id).reasons == ()


async def test_a_type_has_the_defaults_that_an_operator_sets(server):
    kind = f"type-{uuid.uuid4().hex[:12]}"
    async with AsyncClient(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        policy = RetryPolicy(max_attempts=1)
        found = await client.admin.set_job_type_defaults(
            kind, retry_policy=policy, run_timeout=60, priority=8
        )
        assert (found.job_type, found.defaults.run_timeout) == (kind, timedelta(minutes=1))
        assert (found.defaults.queue_timeout, found.defaults.priority) == (None, 8)
        assert found in [each async for each in client.admin.list_job_types(page_size=1)]
        job = await client.create_job(kind)
        assert (job.priority, job.retry_policy) == (8, found.defaults.retry_policy)
        assert (await client.create_job(kind, priority=1)).priority == 1
        await client.admin.clear_job_type_defaults(kind)
        assert (await client.create_job(kind)).priority == 5


async def test_only_one_job_with_a_unique_key_is_active(server):
    async with AsyncClient(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        first = await client.create_job("render", unique_key="order-1")
        with pytest.raises(UniqueKeyTaken) as taken:
            await client.create_jobs([NewJob("render"), NewJob("render", unique_key="order-1")])
        assert (taken.value.job_id, taken.value.index) == (first.id, 1)
        same = await client.create_job(
            "render", unique_key="order-1", unique_policy=UniquePolicy.RETURN_EXISTING
        )
        assert (same, first.existing, same.existing) == (first, False, True)
        batch = [NewJob("render", request_id="a"), NewJob("render")]
        assert [job.existing for job in await client.create_jobs(batch)] == [False, False]
        batch = [batch[0], NewJob("render")]
        assert [job.existing for job in await client.create_jobs(batch)] == [True, False]
        await client.cancel_job(first.id)
        failed = await client.cancel_job((await client.create_job("render")).id)
        reruns = [await client.rerun_job(failed.id) for _ in range(2)]
        assert [job.existing for job in reruns] == [False, True]
        assert await client.create_job("render", unique_key="order-1") != first
