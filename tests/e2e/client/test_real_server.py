"""Both clients against the real server."""

import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from jobledger import (
    Asset,
    AsyncClient,
    Client,
    IllegalTransition,
    InvalidField,
    InvalidToken,
    JobNotFound,
    JobStatus,
    JobTerminal,
    LeaseLost,
    RequestIdReused,
    VersionMismatch,
)

PROCESSING = JobStatus.PROCESSING
COMPLETED = JobStatus.COMPLETED
PARTIAL = JobStatus.PARTIAL
FAILED = JobStatus.FAILED


@pytest.fixture
def client(server):
    with Client(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        yield client


@pytest.fixture
def running(client):
    return client.start_job(client.create_job("render").id)


def test_a_job_lives_from_creation_to_deletion(client):
    job = client.create_job("render", {"scene": {"frames": [1, 2]}}, labels={"team": "a"})
    assert job.parameters == {"scene": {"frames": [1, 2]}}
    assert (job.status, job.version, dict(job.labels)) == (
        JobStatus.QUEUED,
        1,
        {"team": "a"},
    )
    assert client.get_job(job.id) == job

    started = client.start_job(job.id)
    assert (started.status, started.attempt, started.worker_id) == (PROCESSING, 1, client.worker_id)
    answer = client.update_progress(job.id, 40, progress_message="on it", attempt=1)
    assert (answer.applied, answer.job.progress, answer.job.progress_message) == (True, 40, "on it")
    assert not client.update_progress(job.id, 30).applied

    asset = client.create_asset(job.id, "image/png", url="https://example.com/a.png", file_size=7)
    more = Asset("text/plain", storage_path="logs/1")
    done = client.mark_completed(job.id, {"frames": 2}, assets=[more], attempt=1)
    assert (done.status, done.progress) == (COMPLETED, 100)
    assert done.result == {"frames": 2}
    assert [made.asset_type for made in client.list_assets(job.id)] == ["image/png", "text/plain"]
    assert next(client.list_assets(job.id)) == asset
    assert [step.to_status for step in client.list_transitions(job.id)] == [PROCESSING, COMPLETED]
    assert client.wait(job.id) == done

    client.delete_job(job.id)
    with pytest.raises(JobNotFound):
        client.get_job(job.id)


async def test_the_async_client_does_the_same(server):
    async with AsyncClient(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        job = await client.create_job("render", {"a": 1})
        assert await client.get_job(job.id) == job
        await client.start_job(job.id)
        assert (await client.update_progress(job.id, 5)).applied
        await client.create_asset(job.id, "x", storage_path="p")
        failed = await client.mark_failed(job.id, "disk full", reason="NO_DISK", attempt=1)
        assert (failed.status, failed.error.reason, failed.error.message) == (
            FAILED,
            "NO_DISK",
            "disk full",
        )
        assert [made.storage_path async for made in client.list_assets(job.id)] == ["p"]
        steps = [step async for step in client.list_transitions(job.id)]
        assert [step.to_status for step in steps] == [PROCESSING, FAILED]
        assert [found.id async for found in client.list_jobs()] == [job.id]
        assert await client.wait(job.id) == failed
        await client.delete_job(job.id)
        with pytest.raises(JobNotFound):
            await client.get_job(job.id)


def test_a_partial_job_has_its_missing_parts(client, running):
    job = client.mark_partial(running.id, {"done": 3}, error="2 are missing")
    assert (job.status, job.error.message) == (PARTIAL, "2 are missing")


def test_lists_read_all_pages_and_apply_filters(client):
    ids = [client.create_job(f"type{n % 2}", labels={"n": str(n)}).id for n in range(7)]
    client.start_job(ids[0])

    def listed(**filters):
        return [job.id for job in client.list_jobs(page_size=2, **filters)]

    assert listed() == ids[::-1]
    assert listed(job_types=["type1"]) == ids[5:0:-2]
    assert listed(statuses=[PROCESSING]) == ids[:1]
    assert listed(labels={"n": "3"}) == ids[3:4]
    assert listed(created_after=datetime.now(UTC) + timedelta(days=1)) == []
    assert listed(created_before=datetime.now(UTC) + timedelta(days=1)) == ids[::-1]


def test_the_same_request_id_gives_the_same_job_and_other_content_is_refused(client):
    job = client.create_job("render", request_id="r")
    assert client.create_job("render", request_id="r").id == job.id
    with pytest.raises(RequestIdReused):
        client.create_job("bake", request_id="r")


def test_a_start_may_be_repeated_by_the_same_client_only(client, running):
    assert client.start_job(running.id) == running
    with pytest.raises(IllegalTransition):
        client.start_job(running.id, worker_id="another")


def test_a_terminal_report_may_be_repeated(client, running):
    done = client.mark_completed(running.id, {"a": 1})
    assert client.mark_completed(running.id, {"a": 1}) == done


def test_an_invalid_request_reports_every_violation(client):
    with pytest.raises(InvalidField) as raised:
        client.create_job("", labels={"": "x"})
    assert len(raised.value.violations) == 2
    assert "job_type" in [field for field, _ in raised.value.violations]


class DamagesTokens(grpc.UnaryUnaryClientInterceptor):
    """Sends a page token that no server has given."""

    def intercept_unary_unary(self, continuation, client_call_details, request):
        request.page_token = "nonsense"
        return continuation(client_call_details, request)


def test_a_damaged_page_token_is_refused(server):
    with grpc.insecure_channel(server.target) as channel:
        client = Client(channel=grpc.intercept_channel(channel, DamagesTokens()), user_id="ada")
        with pytest.raises(InvalidToken):
            list(client.list_jobs())


def test_another_owners_job_is_not_found(client, running):
    for call in (client.get_job, client.delete_job):
        with pytest.raises(JobNotFound):
            call(running.id, user_id="somebody-else")


def test_an_illegal_transition_names_the_allowed_statuses(client):
    job = client.create_job("render")
    with pytest.raises(IllegalTransition) as raised:
        client.mark_completed(job.id)
    assert (raised.value.current, raised.value.target) == ("QUEUED", "COMPLETED")
    assert raised.value.allowed == ("PROCESSING",)
    assert raised.value.metadata["job_id"] == job.id


def test_a_terminal_job_refuses_another_terminal_state(client, running):
    client.mark_completed(running.id)
    with pytest.raises(JobTerminal) as raised:
        client.mark_failed(running.id, "no")
    assert (raised.value.current, raised.value.allowed) == ("COMPLETED", ())


@pytest.mark.promise(number=10)
def test_a_stale_attempt_is_fenced(client, running):
    with pytest.raises(LeaseLost) as raised:
        client.update_progress(running.id, 5, attempt=7)
    assert raised.value.attempt == 1


def test_an_outdated_version_is_refused(client, running):
    with pytest.raises(VersionMismatch) as raised:
        client.transition_job(running.id, COMPLETED, expected_version=1)
    assert raised.value.version == running.version


def test_watching_yields_every_step_and_ends(client, running):
    news = client.watch(running.id)
    first = next(news)
    assert first.job == running
    assert [step.to_status for step in first.transitions] == [PROCESSING]
    client.update_progress(running.id, 50)
    assert next(news).job.progress == 50
    client.mark_completed(running.id)
    rest = list(news)
    assert rest[-1].job.status == COMPLETED
    assert [step.to_status for message in rest for step in message.transitions] == [COMPLETED]


def test_watching_after_a_version_yields_only_what_is_newer(client, running):
    client.update_progress(running.id, 50)
    done = client.mark_completed(running.id)
    (message,) = client.watch(running.id, after_version=running.version)
    assert message.job == done
    assert [step.version for step in message.transitions] == [done.version]


def test_watching_an_absent_job_is_refused(client):
    with pytest.raises(JobNotFound):
        next(client.watch(str(uuid.uuid4())))


def test_the_largest_parameters_pass(client):
    blob = "x" * (255 * 1024)
    job = client.create_job("render", {"blob": blob})
    assert client.get_job(job.id).parameters["blob"] == blob


@pytest.mark.promise(number=67)
def test_a_client_with_more_watches_than_a_connection_has_streams_still_makes_calls(client):
    job = client.create_job("render")
    watches = [client.watch(job.id) for _ in range(120)]
    assert {next(watch).job.id for watch in watches} == {job.id}
    client.cancel_job(job.id)
    assert {[*watch][-1].job.status for watch in watches} == {FAILED}


@pytest.mark.promise(number=67)
async def test_an_async_client_with_more_watches_than_a_connection_has_streams_makes_calls(server):
    async with AsyncClient(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        job = await client.create_job("render")
        watches = [client.watch(job.id) for _ in range(120)]
        assert {(await anext(watch)).job.id for watch in watches} == {job.id}
        await client.cancel_job(job.id)
        assert {[news async for news in watch][-1].job.status for watch in watches} == {FAILED}


def test_an_id_that_no_job_can_have_is_not_found_and_one_that_is_none_is_refused(client):
    for call in (client.get_job, client.delete_job, client.wait):
        for job_id in ("nonsense", "x" * 36):
            with pytest.raises(JobNotFound):
                call(job_id)
        for job_id in ("", "x" * 37):
            with pytest.raises(InvalidField, match="job_id"):
                call(job_id)
