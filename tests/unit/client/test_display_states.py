"""What people see of a job: one state, from the job alone."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf import json_format

from jobledger import DisplayState, Job, JobError, JobStatus, RetryPolicy
from jobledger.cli.render import to_json
from jobledger.v1 import job_pb2
from tests.support.display_states import CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["state"])
def test_a_job_has_one_state_to_show(case: dict[str, Any]) -> None:
    job = Job.from_proto(json_format.ParseDict(case["job"], job_pb2.Job()))
    assert job.display_state == case["state"]


def test_the_table_has_each_state_and_each_status() -> None:
    assert {case["state"] for case in CASES} == {*DisplayState} - {"UNKNOWN"}
    statuses = {case["job"]["status"].removeprefix("JOB_STATUS_") for case in CASES}
    assert statuses == {*JobStatus} - {"UNKNOWN"}


def test_a_status_of_a_newer_service_is_unknown() -> None:
    assert Job(id="j", job_type="t", status=JobStatus.UNKNOWN).display_state == "UNKNOWN"


def test_a_job_is_scheduled_until_its_time() -> None:
    now = datetime(2026, 12, 1, tzinfo=UTC)
    job = Job(id="j", job_type="t", schedule_time=now)
    assert job.display_state_at(now - timedelta(microseconds=1)) is DisplayState.SCHEDULED
    assert job.display_state_at(now) is DisplayState.QUEUED


def test_a_job_as_json_is_what_the_command_line_prints() -> None:
    now = datetime(2026, 12, 1, 8, 30, tzinfo=UTC)
    job = Job(
        id="j",
        job_type="t",
        status=JobStatus.FAILED,
        parameters={"b": [1, None], "a": {"z": 1.5}},
        error=JobError("full", reason="NO_DISK", details={"free": 0}),
        labels={"team": "film"},
        retry_policy=RetryPolicy(max_attempts=3, initial_backoff=timedelta(seconds=1.5)),
        create_time=now,
        stall_timeout=timedelta(minutes=1),
    )
    found = job.to_dict()
    assert json.dumps(found) == to_json(job)
    assert (found["status"], type(found["status"])) == ("FAILED", str)
    assert found["create_time"] == "2026-12-01T08:30:00.000000Z"
    assert (found["start_time"], found["stall_timeout"]) == (None, "60s")
    assert found["error"] == {"message": "full", "reason": "NO_DISK", "details": {"free": 0}}
    assert found["retry_policy"]["initial_backoff"] == "1.5s"
    assert (found["parameters"], found["labels"]) == (job.parameters, {"team": "film"})
