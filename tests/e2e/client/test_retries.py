"""The repetitions of a call, against a server that is unavailable for a while."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from jobledger import (
    AsyncClient,
    Client,
    ClientClosed,
    DeadlineExceeded,
    JobStatus,
    NewJob,
    Unavailable,
)
from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1 import queue_service_pb2 as queues
from jobledger.v1 import worker_service_pb2 as worker
from tests.e2e.client.conftest import flaky_server

SERVICES = [
    jobs.DESCRIPTOR.services_by_name["JobService"],
    worker.DESCRIPTOR.services_by_name["WorkerService"],
    queues.DESCRIPTOR.services_by_name["QueueService"],
]
UNARY = {
    "CreateJob": lambda client: client.create_job("render"),
    "BatchCreateJobs": lambda client: client.create_jobs([NewJob("a"), NewJob("b")]),
    "GetJob": lambda client: client.get_job("j"),
    "BatchGetJobs": lambda client: client.get_jobs(["j"]),
    "ListJobs": lambda client: next(client.list_jobs(), None),
    "DeleteJob": lambda client: client.delete_job("j"),
    "CancelJob": lambda client: client.cancel_job("j"),
    "UpdateJob": lambda client: client.update_job("j", priority=1),
    "RerunJob": lambda client: client.rerun_job("j"),
    "RerunJobs": lambda client: client.rerun_jobs(),
    "CancelJobs": lambda client: client.cancel_jobs(),
    "DeleteJobs": lambda client: client.delete_jobs(),
    "ReleaseJob": lambda client: client.release_job("j", 1),
    "ListAssets": lambda client: next(client.list_assets("j"), None),
    "ListTransitions": lambda client: next(client.list_transitions("j"), None),
    "ListAttempts": lambda client: next(client.list_attempts("j"), None),
    "TransitionJob": lambda client: client.start_job("j"),
    "UpdateProgress": lambda client: client.update_progress("j", 1, attempt=1),
    "MarkCompleted": lambda client: client.mark_completed("j", attempt=1),
    "MarkPartial": lambda client: client.mark_partial("j", attempt=1),
    "MarkFailed": lambda client: client.mark_failed("j", "no", attempt=1),
    "CreateAsset": lambda client: client.create_asset("j", "x", url="https://a/b", attempt=1),
    "ListJobTypeStats": lambda client: next(client.admin.list_job_type_stats(), None),
    "ExplainJob": lambda client: client.explain_job("j"),
    "PauseJobType": lambda client: client.admin.pause_job_type("render"),
    "ResumeJobType": lambda client: client.admin.resume_job_type("render"),
    "PauseConcurrencyKey": lambda client: client.admin.pause_concurrency_key("stripe"),
    "ResumeConcurrencyKey": lambda client: client.admin.resume_concurrency_key("stripe"),
    "SetConcurrencyLimit": lambda client: client.admin.set_concurrency_limit("stripe", 10),
    "CreateWatchToken": lambda client: client.create_watch_token("j"),
    "RevokeWatchTokens": lambda client: client.admin.revoke_watch_tokens(),
    "ListConcurrencyLimits": lambda client: next(client.admin.list_concurrency_limits(), None),
    "SetJobTypeDefaults": lambda client: client.admin.clear_job_type_defaults("render"),
    "ListJobTypes": lambda client: next(client.admin.list_job_types(), None),
}


def test_every_unary_rpc_of_the_contract_is_covered():
    methods = [method for service in SERVICES for method in service.methods]
    unary = {method.name for method in methods if not method.server_streaming}
    assert unary == set(UNARY) | {"ClaimJobs"}


def test_each_unary_call_is_retried_with_the_same_request_during_a_short_outage():
    def requests(call):
        with flaky_server() as flaky, Client(flaky.target, user_id="ada") as client:
            flaky.refusals = 2
            call(client)
            return flaky.requests

    with ThreadPoolExecutor(len(UNARY)) as calls:  # each waits before it tries again
        for method, made in zip(UNARY, calls.map(requests, UNARY.values()), strict=True):
            assert (len(made), len(set(made))) == (3, 1), method


async def test_the_async_client_retries_during_a_short_outage_too(flaky):
    flaky.refusals = 2
    async with AsyncClient(flaky.target, user_id="ada") as client:
        await client.create_job("render")
    assert len(flaky.requests) == 3
    assert len(set(flaky.requests)) == 1


def test_the_largest_request_is_retried_too(flaky):
    flaky.refusals = 1
    with Client(flaky.target, user_id="ada") as client:
        client.create_job("render", {"blob": "x" * 1_000_000})
    assert len(flaky.requests) == 2


def test_a_long_outage_is_reported_within_the_timeout(flaky):
    flaky.refusals = 100
    with (
        Client(flaky.target, user_id="ada") as client,
        pytest.raises(Unavailable, match="away"),
    ):
        client.get_job("j")
    assert len(flaky.requests) == 5


def test_a_deadline_that_passes_in_an_outage_says_what_the_service_answered(flaky):
    flaky.refusals = 100
    with (
        Client(flaky.target, user_id="ada", timeout=0.3) as client,
        pytest.raises(DeadlineExceeded, match=r"within 0\.3 s: .*away") as raised,
    ):
        client.create_job("render", request_id="r")
    assert raised.value.request_id == "r"


async def test_a_deadline_that_passes_in_an_outage_says_it_to_the_async_client_too(flaky):
    flaky.refusals = 100
    async with AsyncClient(flaky.target, user_id="ada", timeout=0.3) as client:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s: .*away"):
            await client.get_job("j")


def test_a_call_that_pauses_ends_when_its_client_is_closed(flaky):
    flaky.refusals = 100
    client = Client(flaky.target, user_id="ada", timeout=None)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.get_job, "j")
        while len(flaky.requests) < 4:  # the longest pause is next
            flaky.asked.wait(10)
            flaky.asked.clear()
        client.close()
        with pytest.raises(ClientClosed):
            call.result(timeout=1)


def test_only_unavailable_is_retried(flaky):
    flaky.refusals, flaky.code = 100, grpc.StatusCode.ABORTED
    with Client(flaky.target, user_id="ada") as client, pytest.raises(Exception, match="away"):
        client.transition_job("j", JobStatus.PROCESSING)
    assert len(flaky.requests) == 1


def test_a_claim_is_not_retried_because_it_may_have_claimed_jobs(flaky):
    flaky.refusals = 100
    with Client(flaky.target) as client, pytest.raises(Unavailable):
        client.claim_jobs(["render"])
    assert len(flaky.requests) == 1


def test_a_claim_that_says_what_is_held_is_retried(flaky):
    flaky.refusals = 2
    with Client(flaky.target) as client:
        assert client.claim_jobs(["render"], holding=[]) == []
    assert (len(flaky.requests), len(set(flaky.requests))) == (3, 1)


def test_the_deadline_of_a_claim_is_its_wait_plus_the_call_timeout(flaky):
    with Client(flaky.target, timeout=0.2) as client:
        flaky.delay = 0.6
        assert client.claim_jobs(["render"], wait=20) == []
        flaky.delay = 60  # never, but for a client that has no deadline
        with pytest.raises(DeadlineExceeded):
            client.claim_jobs(["render"], wait=0)


@pytest.mark.parametrize(
    "watch",
    [
        lambda client: client.watch("j", connect_timeout=0),
        lambda client: client.watch_jobs(connect_timeout=0),
    ],
)
def test_a_watch_is_not_repeated_as_a_call(flaky, watch):
    flaky.refusals = 100
    with Client(flaky.target, user_id="ada") as client, pytest.raises(Unavailable):
        list(watch(client))
    assert len(flaky.requests) == 1


async def test_hundreds_of_calls_in_flight_survive_a_short_outage(flaky):
    flaky.refusals = 600
    async with AsyncClient(flaky.target, user_id="ada") as client:
        await asyncio.gather(*(client.get_job("j") for _ in range(200)))
