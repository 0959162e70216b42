"""Messages as JSON: written once for all event streams that are sent the same."""

import json

from google.protobuf.message import Message
from starlette.requests import Request

from jobledger.v1.job_pb2 import JOB_VIEW_BASIC, JOB_VIEW_FULL, Job
from jobledger.v1.job_service_pb2 import GetJobRequest, WatchJobResponse
from jobledger_gateway.large_messages import LargeMessages

ADA = Request({"type": "http", "client": ("192.0.2.1", 1), "headers": [], "query_string": b""})
BOB = Request({"type": "http", "client": ("192.0.2.2", 2), "headers": [], "query_string": b""})


def a_change(version: int) -> Message:
    return WatchJobResponse(job=Job(id="a", labels={"x": "1", "y": "2"}, version=version))


async def test_streams_that_are_sent_the_same_share_its_json() -> None:
    messages = LargeMessages()
    first = await messages.encoded(ADA, a_change(7), JOB_VIEW_BASIC)
    assert json.loads(first)["job"] == {"id": "a", "labels": {"x": "1", "y": "2"}, "version": "7"}
    assert await messages.encoded(BOB, a_change(7), JOB_VIEW_BASIC) is first
    assert json.loads(await messages.encoded(BOB, a_change(8), JOB_VIEW_BASIC)) != json.loads(first)


async def test_messages_of_two_kinds_share_no_json() -> None:
    messages = LargeMessages()
    one, other = GetJobRequest(job_id="a"), Job(id="a")
    assert one.SerializeToString() == other.SerializeToString()
    for message, expected in ((one, {"jobId": "a"}), (other, {"id": "a"})):
        assert json.loads(await messages.encoded(ADA, message, JOB_VIEW_BASIC)) == expected


async def test_payloads_are_not_kept() -> None:
    messages = LargeMessages()
    first = await messages.encoded(ADA, a_change(9), JOB_VIEW_FULL)
    second = await messages.encoded(ADA, a_change(9), JOB_VIEW_FULL)
    assert first == second
    assert first is not second
