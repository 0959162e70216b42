"""Arguments that cannot be meant are refused before any call, by an error that names them."""

import math
from datetime import timedelta

import pytest

from jobledger import AsyncClient, Client, JobStatus, NewJob
from jobledger.core.options import DEFAULT, headers_of, seconds_of

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def client():
    with Client(NOWHERE, user_id="ada") as client:
        yield client


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("job_id", lambda c: c.get_job(5)),
        ("job_id", lambda c: c.get_job(b"j")),
        ("job_id", lambda c: c.get_job(None)),
        ("job_id", lambda c: c.watch(7)),
        ("user_id", lambda c: c.get_job("j", user_id=7)),
        ("job_type", lambda c: c.create_job(7)),
        ("parameters", lambda c: c.create_job("t", [1])),
        ("labels", lambda c: c.create_job("t", labels=[("a", "b")])),
        ("labels.n", lambda c: c.create_job("t", labels={"n": 1})),
        ("request_id", lambda c: c.create_job("t", request_id=1)),
        ("run_timeout", lambda c: c.create_job("t", run_timeout="1h")),
        (r"jobs\[1\].job_type", lambda c: c.create_jobs([NewJob("a"), NewJob(2)])),
        ("statuses", lambda c: c.list_jobs(statuses=["QUEUED"])),
        ("statuses", lambda c: c.list_jobs(statuses="QUEUED")),
        ("job_types", lambda c: c.list_jobs(job_types="render")),
        ("job_types", lambda c: c.watch_jobs(job_types="render")),
        ("job_types", lambda c: c.claim_jobs("render")),
        ("job_types", lambda c: c.claim_jobs([1])),
        ("job_ids", lambda c: c.wait_all("j")),
        ("created_after", lambda c: c.list_jobs(created_after="2026-01-01")),
        ("page_token", lambda c: c.list_jobs(page_token=5)),
        ("resume_token", lambda c: c.watch_jobs(resume_token=5)),
        ("target_status", lambda c: c.transition_job("j", "FAILED")),
        ("error", lambda c: c.mark_failed("j", ValueError("no"))),
        ("assets", lambda c: c.mark_completed("j", assets="a.png")),
        ("assets", lambda c: c.mark_completed("j", assets=["a.png"])),
        ("result", lambda c: c.mark_completed("j", "done")),
        ("timeout", lambda c: c.get_job("j", timeout="1")),
        ("connect_timeout", lambda c: c.watch("j", connect_timeout="1")),
        ("metadata", lambda c: c.get_job("j", metadata={"k": 1})),
        ("target", lambda _: Client(5)),
        ("token", lambda _: Client(NOWHERE, token=5)),
        ("user_id", lambda _: Client(NOWHERE, user_id=5)),
    ],
)
def test_a_wrong_type_is_a_type_error_that_names_the_argument(client, name, call):
    with pytest.raises(TypeError, match=name):
        call(client)


@pytest.mark.parametrize("timeout", [math.nan, -1, timedelta(seconds=-1)])
def test_a_timeout_that_is_no_time_span_is_refused(client, timeout):
    with pytest.raises(ValueError, match="timeout"):
        client.get_job("j", timeout=timeout)
    with pytest.raises(ValueError, match="reconnect_timeout"):
        client.watch("j", reconnect_timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        AsyncClient(NOWHERE, timeout=timeout)


@pytest.mark.parametrize("timeout", [None, math.inf, 1e12])
def test_a_timeout_longer_than_any_program_is_no_limit(timeout):
    assert seconds_of(timeout, "timeout") is None


def test_a_timeout_may_be_a_timedelta():
    assert seconds_of(timedelta(minutes=1), "timeout") == 60.0
    assert repr(DEFAULT)


def test_metadata_may_be_a_mapping_or_pairs():
    assert headers_of({"a": "b"}) == headers_of([("a", "b")]) == (("a", "b"),)


@pytest.mark.parametrize("target", ["", None])
def test_a_target_that_is_empty_is_refused(target):
    with pytest.raises((ValueError, TypeError), match="target"):
        Client(target)


def test_a_status_for_a_filter_is_a_member(client):
    assert client.list_jobs(statuses=[JobStatus.QUEUED])
