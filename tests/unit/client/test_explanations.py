"""Why a job waits, as Python values."""

from datetime import UTC, datetime

import pytest
from google.protobuf.json_format import ParseDict

from jobledger import (
    Explanation,
    KeyPaused,
    LimitReached,
    NoWorker,
    Pause,
    Queued,
    Scheduled,
    TypePaused,
    WaitKind,
    WaitReason,
    WaitsForItsJobs,
)
from jobledger.v1 import queue_service_pb2

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
PAUSE = {"pause_time": "2026-11-26T12:00:00Z", "actor": "ann", "reason": "deploy"}
PAUSED = Pause(pause_time=NOON, actor="ann", reason="deploy")

CASES = [
    ({"no_worker": {"job_type": "render"}}, NoWorker(job_type="render")),
    (
        {"paused": {"job_type": "render", "pause": PAUSE}},
        TypePaused(job_type="render", pause=PAUSED),
    ),
    (
        {"paused": {"concurrency_key": "stripe", "pause": PAUSE}},
        KeyPaused(concurrency_key="stripe", pause=PAUSED),
    ),
    (
        {
            "concurrency_limit": {
                "concurrency_key": "stripe:7",
                "running": 2,
                "max_running": 1,
                "holder_job_ids": ["a", "b"],
            }
        },
        LimitReached(
            concurrency_key="stripe:7", running=2, max_running=1, holder_job_ids=("a", "b")
        ),
    ),
    ({"scheduled": {"schedule_time": "2026-11-26T12:00:00Z"}}, Scheduled(schedule_time=NOON)),
    (
        {"queued": {"ahead": 17, "capped": True, "higher_priority": 4, "tenants": 3}},
        Queued(ahead=17, capped=True, higher_priority=4, tenants=3),
    ),
    ({"group": {"open": 3, "sealed": True}}, WaitsForItsJobs(open=3, sealed=True)),
    ({}, WaitReason()),
]


@pytest.mark.parametrize(("message", "reason"), CASES)
def test_each_reason_has_its_class_and_its_kind(message, reason):
    answer = {"job": {"id": "j"}, "reasons": [message]}
    explanation = Explanation.from_proto(ParseDict(answer, queue_service_pb2.ExplainJobResponse()))
    assert explanation.reasons == (reason,)
    assert (explanation.job.id, explanation.job.parameters) == ("j", None)


def test_every_reason_of_the_contract_is_covered_above():
    fields = queue_service_pb2.WaitReason.DESCRIPTOR.oneofs_by_name["reason"].fields
    assert {field.name for field in fields} == {name for message, _ in CASES for name in message}
    assert {reason.kind for _, reason in CASES} == set(WaitKind)
