"""Arguments that cannot be meant are refused before any call, by an error that names them."""

import math
from datetime import timedelta

import pytest

from jobledger import Asset, AsyncClient, Client, Job, JobError, NewJob, RetryPolicy
from jobledger.core.conversion import to_seconds
from jobledger.core.options import headers_of

NOWHERE = "127.0.0.1:1"
JOB = Job(id="j", job_type="t")


@pytest.fixture
def client():
    with Client(NOWHERE, user_id="ada") as client:
        yield client


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("job_id", lambda c: c.get_job(5)),
        ("job_id: ", lambda c: c.wait(5)),
        ("job_ids: ", lambda c: c.wait_all(JOB)),
        (r"job_ids\[1\]: ", lambda c: c.get_jobs(["j", 5])),
        (r"job_ids\[0\]: ", lambda c: c.watch_jobs(job_ids=[None])),
        ("origin_job_id: ", lambda c: c.list_jobs(origin_job_id=5)),
        ("user_id", lambda c: c.get_job("j", user_id=7)),
        ("parameters", lambda c: c.create_job("t", [1])),
        ("labels", lambda c: c.create_job("t", labels={"n": 1})),
        ("run_timeout", lambda c: c.create_job("t", run_timeout="1h")),
        ("max_attempts", lambda c: c.create_job("t", retry_policy=RetryPolicy(max_attempts=1.5))),
        ("retry_policy", lambda c: c.create_job("t", retry_policy=3)),
        ("max_attempts: ", lambda c: c.create_job("t", max_attempts=3)),
        ("job_type", lambda _: NewJob(2)),
        ("schedule_time: ", lambda _: NewJob("t", schedule_time="2026-11-01")),
        ("schedule_time: ", lambda c: c.update_job("j", schedule_time=timedelta(1))),
        ("created_after: ", lambda c: c.list_jobs(created_after=timedelta(1))),
        ("page_size", lambda c: c.list_jobs(page_size=1.5)),
        ("after_version", lambda c: c.watch("j", after_version="1")),
        ("file_size", lambda c: c.create_asset("j", "t", url="u", file_size=1.5)),
        ("url", lambda c: c.mark_completed("j", assets=[Asset("t", url=5)])),
        ("message", lambda c: c.mark_failed("j", JobError(5))),
        ("reason", lambda c: c.mark_failed("j", "no", reason=5)),
        ("job_types", lambda c: c.list_jobs(job_types="render")),
        ("job_types", lambda c: c.claim_jobs("render")),
        ("jobs_per_second", lambda c: c.rerun_jobs(jobs_per_second="5")),
        ("timeout", lambda c: c.cancel_jobs(timeout="5")),
        ("delay", lambda c: c.release_job("j", 1, delay="5")),
        ("checkpoint", lambda c: c.update_progress("j", checkpoint=[1])),
        ("job_ids", lambda c: c.as_completed("abc")),
        ("timeout", lambda c: c.as_completed(["j"], timeout="5")),
        ("timeout", lambda c: c.get_job("j", timeout="1")),
        ("connect_timeout", lambda c: c.watch("j", connect_timeout="1")),
        ("result", lambda c: c.mark_completed("j", "done")),
        ("timeot: ", lambda c: c.get_job("j", timeot=1)),
        ("on_error: ", lambda c: c.watch("j", on_error=print)),
        ("heartbeats: ", lambda c: c.wait_all(["j"], heartbeats=True)),
        ("heartbeats: ", lambda c: c.watch_jobs(heartbeats=True)),
        ("job_type: ", lambda c: c.list_jobs(job_type=["t"])),
        ("token", lambda _: Client(NOWHERE, token=5)),
    ],
)
def test_a_wrong_type_is_a_type_error_that_names_the_argument(client, name, call):
    with pytest.raises(TypeError, match=f"^{name}"):
        call(client)


LONE_SURROGATE = "\udcff"  # what os.fsdecode() makes of a byte that is not UTF-8


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("max_attempts", lambda c: c.create_job("t", retry_policy=RetryPolicy(max_attempts=2**40))),
        ("max_attempts", lambda c: c.create_job("t", retry_policy=RetryPolicy(max_attempts=0))),
        ("delay", lambda _: NewJob("t", delay=-1)),
        ("delay", lambda _: NewJob("t", delay=1, schedule_time=timedelta(1))),
        ("parameters.file", lambda c: c.create_job("t", {"file": LONE_SURROGATE})),
        ("labels", lambda c: c.create_job("t", labels={"file": LONE_SURROGATE})),
        ("attempt", lambda c: c.update_progress("j", attempt=2**70)),
        ("file_size", lambda c: c.mark_completed("j", assets=[Asset("t", file_size=2**70)])),
    ],
)
def test_what_a_message_cannot_hold_is_a_value_error_that_names_the_argument(client, name, call):
    with pytest.raises(ValueError, match=f"^{name}: ") as caught:
        call(client)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize(
    "metadata",
    [
        {"X-Id": "1"},
        {"": "1"},
        {"a b": "1"},
        {":path": "1"},
        {"k": "a\nb"},
        {"k": "\xe9"},
        {"k": b"\0"},
    ],
)
def test_metadata_that_no_header_can_hold_is_refused(client, metadata):
    with pytest.raises(ValueError, match=r"^metadata: "):
        client.get_job("j", metadata=metadata)
    with pytest.raises(ValueError, match=r"^metadata: "):
        client.watch("j", metadata=metadata)
    with pytest.raises(ValueError, match=r"^metadata: "):
        AsyncClient(NOWHERE, metadata=metadata)


@pytest.mark.parametrize("timeout", [math.nan, -1, timedelta(seconds=-1)])
def test_a_timeout_that_is_no_time_span_is_refused(client, timeout):
    with pytest.raises(ValueError, match="timeout"):
        client.get_job("j", timeout=timeout)
    with pytest.raises(ValueError, match="reconnect_timeout"):
        client.watch("j", reconnect_timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        AsyncClient(NOWHERE, timeout=timeout)


def test_heartbeats_without_an_interval_are_refused(client):
    with pytest.raises(ValueError, match=r"^heartbeats: "):
        client.watch("j", heartbeats=0)


@pytest.mark.parametrize("timeout", [math.inf, 1e12, 10**400, timedelta.max])
def test_a_time_span_is_at_most_ten_years_which_every_part_can_hold(timeout):
    assert to_seconds(timeout, "timeout") == 10 * 365 * 86400


def test_a_time_span_may_be_a_timedelta():
    assert to_seconds(timedelta(minutes=1), "timeout") == 60.0


def test_metadata_may_be_a_mapping_or_pairs():
    assert headers_of({"k": b"b", "k-bin": b"\xff"}) == (("k", b"b"), ("k-bin", b"\xff"))
    assert headers_of({"a": "b"}) == headers_of([("a", "b")]) == (("a", "b"),)


@pytest.mark.parametrize("target", ["", "http://127.0.0.1:50051", "https://jobs.example"])
def test_a_target_that_is_no_address_is_refused(target):
    with pytest.raises(ValueError, match=r"target: .*give HOST:PORT"):
        Client(target)


@pytest.mark.parametrize(
    ("name", "filters"),
    [
        ("job_types", {"job_types": []}),
        ("statuses", {"statuses": ()}),
        ("error_reasons", {"error_reasons": iter(())}),
        ("labels", {"labels": {}}),
        ("origin_job_id", {"origin_job_id": ""}),
    ],
)
def test_many_jobs_are_not_changed_by_a_filter_that_a_program_has_left_empty(client, name, filters):
    with pytest.raises(ValueError, match=f"^{name}: is empty"):
        client.delete_jobs(**filters)
