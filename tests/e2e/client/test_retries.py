"""The repetitions of a call, against a server that is unavailable for a while."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from jobledger import (
    AsyncClient,
    Client,
    ClientClosed,
    DeadlineExceeded,
    JobStatus,
    Unavailable,
)
from jobledger.v1.worker_service_pb2 import CreateAssetRequest
from tests.e2e.client.conftest import flaky_server
from tests.unit.client.test_requests import CASES


def test_each_unary_call_is_retried_with_the_same_request_during_a_short_outage():
    def requests(call):
        with flaky_server() as flaky, Client(flaky.target, user_id="ada") as client:
            flaky.refusals = 2
            call(client)
            return flaky.requests

    # Of a claim it cannot be known whether it has claimed jobs.
    made_by = {method: call for call, method, _ in CASES if method != "ClaimJobs"}
    with ThreadPoolExecutor(len(made_by)) as calls:  # each waits before it tries again
        for method, made in zip(made_by, calls.map(requests, made_by.values()), strict=True):
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


def test_the_error_of_an_asset_says_with_what_to_repeat_it(flaky):
    flaky.refusals = 100
    with Client(flaky.target, user_id="ada") as client, pytest.raises(Unavailable) as raised:
        client.create_asset("j", "image/png", url="https://a.example/1", any_attempt=True)
    sent = CreateAssetRequest.FromString(flaky.requests[-1])
    assert raised.value.request_id == sent.asset.request_id != ""


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


def test_a_watch_is_not_repeated_as_a_call(flaky):
    flaky.refusals = 100
    with Client(flaky.target, user_id="ada") as client, pytest.raises(Unavailable):
        list(client.watch_jobs(connect_timeout=0))
    assert len(flaky.requests) == 1
