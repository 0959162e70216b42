"""Each route answers as its RPC does, in JSON; what it cannot read it refuses."""

import asyncio
import json
import threading
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from jobledger.v1.job_service_pb2 import CreateJobRequest, CreateJobResponse
from jobledger_gateway import requests
from jobledger_gateway.requests import INLINE_BYTES
from jobledger_gateway.settings import MAX_BODY, MAX_SKIPPED
from tests.support.fault_server import FaultServer
from tests.support.http_client import Http
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import Caller
from tests.support.server_process import ServerProcess

NEW = {"userId": "ada", "jobType": "render"}
DEEP = b"[" * 100_000


async def created(http: Http, **fields: object) -> dict[str, Any]:
    answer = await http.post("/v1/jobs", {**NEW, **fields})
    assert answer.status == 201
    return answer.json()["job"]


async def test_a_job_is_made_read_cancelled_repeated_and_deleted(http: Http, rpc: Caller) -> None:
    answer = await http.post("/v1/jobs", {**NEW, "user_id": "eve", "userId": "ada"})
    assert answer.status == 400  # the same field in both spellings

    answer = await http.post("/v1/jobs", {**NEW, "parameters": {"width": 4}, "queueTimeout": "90s"})
    job = answer.json()["job"]
    path = f"/v1/jobs/{job['id']}"
    assert (answer.status, answer.headers["location"]) == (201, path)
    named = {**NEW, "userId": "eve", "requestId": "one"}
    first, second = [await http.post("/v1/jobs", named) for _ in range(2)]
    assert (first.status, second.status) == (201, 200)
    assert second.headers["location"] == first.headers["location"]
    assert second.json() == {"existing": True, **first.json()}

    read = await http.get(f"{path}?user_id=ada")
    assert read.headers["content-type"] == "application/json"
    assert read.headers["cache-control"] == "no-store"
    assert read.json() == MessageToDict(await rpc.GetJob(user_id="ada", job_id=job["id"]))
    assert read.json()["job"]["parameters"] == {"width": 4}
    basic = await http.get(f"{path}?userId=ada&view=BASIC")
    assert basic.json()["job"] == job

    reasons = (await http.get(f"{path}:explain?user_id=ada")).json()["reasons"]
    assert {"noWorker": {"jobType": "render"}} in reasons

    updated = await http.post(f"{path}:update", {"userId": "ada", "priority": 9})
    assert updated.json()["job"]["priority"] == 9
    late = {"userId": "ada", "priority": 1, "expectedVersion": "1"}
    assert (await http.post(f"{path}:update", late)).problem["reason"] == "VERSION_MISMATCH"
    cancelled = await http.post(f"{path}:cancel", {"userId": "ada", "reason": "no more"})
    assert cancelled.json()["job"]["cancelReason"] == "no more"
    transitions = (await http.get(f"{path}/transitions?user_id=ada")).json()["transitions"]
    assert [each["version"] for each in transitions] == ["3", "4"]
    for listed in ("attempts", "assets"):
        assert (await http.get(f"{path}/{listed}?user_id=ada")).json() == {}

    again = await http.post(f"{path}:rerun", {"userId": "ada"})
    assert again.json()["job"]["originJobId"] == job["id"]

    deleted = await http.send("DELETE", f"{path}?user_id=ada")
    assert (deleted.status, deleted.json()) == (200, {})
    assert (await http.get(f"{path}?user_id=ada")).status == 404


async def test_a_list_takes_every_kind_of_filter(http: Http) -> None:
    labels = {"team": "blue", "a.b": "x=y&z"}
    jobs = [await created(http, userId="list", labels=labels) for _ in range(3)]
    await created(http, userId="list", jobType="other")
    query = "user_id=list&statuses=QUEUED&statuses=JOB_STATUS_FAILED&job_types=render&held=false"
    query += "&labels.team=blue&labels.a.b=x%3Dy%26z&createdAfter=2020-01-01T00:00:00Z"

    first = (await http.get(f"/v1/jobs?{query}&page_size=2")).json()
    second = (await http.get(f"/v1/jobs?{query}&pageToken={first['nextPageToken']}")).json()

    assert first["jobs"] + second["jobs"] == jobs[::-1]
    assert (await http.get(f"/v1/jobs?{query}&held=true")).status == 400


async def test_steps_over_many_jobs_are_bounded(http: Http) -> None:
    for _ in range(3):
        await created(http, userId="bulk")
    step = {"userId": "bulk", "maxJobs": 2, "all": True}

    assert (await http.post("/v1/jobs:cancel", {**step, "all": False})).status == 400
    tried = await http.post("/v1/jobs:cancel", {**step, "validateOnly": True})
    cancelled = await http.post("/v1/jobs:cancel", step)
    more = {"pageToken": cancelled.json()["nextPageToken"]}
    rest = await http.post("/v1/jobs:cancel", {**step, **more})
    retried = await http.post(
        "/v1/jobs:rerun", {**step, "all": False, "filter": {"cancelled": True}}
    )
    deleted = await http.post("/v1/jobs:delete", {**step, "maxJobs": 9})

    assert [len(tried.json()["sample"]), tried.json().get("changed")] == [2, None]
    assert [cancelled.json()["changed"], rest.json()["changed"]] == [2, 1]
    assert (retried.json()["changed"], deleted.json()["changed"]) == (2, 3)


async def test_an_operator_counts_and_pauses(http: Http) -> None:
    assert (await http.post("/v1/jobTypes/paused.type:pause", {"reason": "why"})).status == 200
    stats = (await http.get("/v1/stats?job_types=paused.type")).json()
    assert stats["stats"][0]["pause"]["reason"] == "why"
    assert (await http.post("/v1/jobTypes/paused.type:resume")).json() == {}
    stats = (await http.get("/v1/stats?job_types=paused.type")).json()
    assert "pause" not in stats["stats"][0]


async def test_an_operator_sets_and_reads_the_defaults_of_a_type(http: Http) -> None:
    given = {"priority": 8, "runTimeout": "60s"}
    answer = await http.post("/v1/jobTypes/some.type:setDefaults", {"defaults": given})
    assert answer.json() == {"jobType": {"jobType": "some.type", "defaults": given}}
    job = await created(http, userId="defaults", jobType="some.type")
    assert job["priority"] == 8
    listed = (await http.get("/v1/jobTypes?page_size=1000")).json()["jobTypes"]
    assert answer.json()["jobType"] in listed
    await http.post("/v1/jobTypes/some.type:setDefaults")
    # Other tests of the same server have types with defaults.
    left = (await http.get("/v1/jobTypes?page_size=1000")).json().get("jobTypes", [])
    assert "some.type" not in [each["jobType"] for each in left]


async def test_the_services_refusals_have_its_reason_and_its_facts(http: Http) -> None:
    facts = {"userId": "facts", "requestId": "one"}
    job = await created(http, **facts)
    cases = {
        "not found": (await http.get("/v1/jobs/none?user_id=facts"), 404, "JOB_NOT_FOUND"),
        "in use": (
            await http.post("/v1/jobs", {**NEW, **facts, "priority": 1}),
            409,
            "REQUEST_ID_REUSED",
        ),
        "too early": (
            await http.send("DELETE", f"/v1/jobs/{job['id']}?user_id=facts"),
            400,
            "ILLEGAL_TRANSITION",
        ),
        "invalid": (await http.post("/v1/jobs", {"userId": "facts"}), 400, "INVALID_FIELD"),
        "token": (await http.get("/v1/jobs?page_token=x"), 400, "INVALID_TOKEN"),
    }
    for answer, status, reason in cases.values():
        assert (answer.status, answer.problem["reason"]) == (status, reason)
        assert answer.headers["cache-control"] == "no-store"
    assert cases["too early"][0].problem["metadata"]["current"] == "QUEUED"
    for case, field in (("invalid", "job_type"), ("token", "page_token")):
        assert cases[case][0].problem["violations"][0]["field"] == field


@in_turn(
    ("query", "field"),
    [
        ("nonsense=1", "nonsense"),
        ("job_types.a=1", "job_types.a"),
        ("labels=a", "labels"),
        ("labels.a=1&labels.a=2", "labels.a"),
        ("user_id=a&userId=b", "userId"),
        ("page_size=many", "page_size"),
        ("page_size=99999999999", "page_size"),
        ("held=perhaps", "held"),
        ("created_after=today", "created_after"),
        ("statuses=ASLEEP", "statuses"),
        ("filter=FAILED", "filter"),
        ("filter.statuses=FAILED", "filter.statuses"),
    ],
)
async def test_a_parameter_that_cannot_be_read_is_named(http: Http, query: str, field: str) -> None:
    problem = (await http.get(f"/v1/jobs?{query}")).problem
    assert (problem["status"], problem["reason"]) == (400, "INVALID_FIELD")
    assert problem["violations"][0]["field"] == field


@in_turn(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"\xff", 400),
        (b'{"userId": 5}', 400),
        (b'{"labels": []}', 400),
        (b'{"userId": "a", "userId": "b"}', 400),
        (b'{"parameters": {"x": NaN}}', 400),
        (b'{"parameters": {"x": 1e999}}', 400),
        (b'{"nonsense": 1}', 400),
        (json.dumps({"parameters": {"x": [[{}] * 1_000] * 100}}).encode(), 413),
        (b'{"\\ud800": 1}', 400),
        (DEEP, 400),
        (b'{"parameters": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001, 400),
        (json.dumps({"userId": "x" * 2 * 2**20}).encode(), 413),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(http: Http, body: bytes, status: int) -> None:
    sent = await http.send("POST", "/v1/jobs", {"Content-Type": "application/json"}, body)
    assert sent.problem["status"] == status
    assert (await http.get("/healthz")).json() == {"status": "ok"}


@in_turn("name", ["job_id", "jobId"])
async def test_a_field_of_the_path_is_not_given_again(http: Http, name: str) -> None:
    read = await http.get(f"/v1/jobs/a?user_id=ada&{name}=b")
    cancelled = await http.post("/v1/jobs/a:cancel", {"userId": "ada", name: "b"})
    for problem in (read.problem, cancelled.problem):
        assert problem["violations"] == [{"field": name, "description": "is given twice"}]


async def test_a_request_of_another_form_is_refused(http: Http) -> None:
    form = {"Content-Type": "text/plain"}
    assert (await http.send("POST", "/v1/jobs", form, b"{}")).problem["status"] == 415
    assert (await http.post("/v1/jobs?user_id=ada", NEW)).problem["status"] == 400
    assert (await http.send("DELETE", "/v1/jobs/a", None, b"{}")).problem["status"] == 400
    for long in ({"Authorization": f"Bearer {'x' * 5_000}"}, {"tracestate": "x" * 2_000}):
        assert (await http.get("/v1/jobs", **long)).problem["status"] == 431
    assert (await http.get("/v1/nothing")).problem["status"] == 404
    wrong = await http.send("PUT", "/v1/jobs")
    assert wrong.problem["status"] == 405
    assert {"GET", "POST"} <= set(wrong.headers["allow"].split(", "))


async def test_a_head_request_has_no_body(http: Http) -> None:
    for path in ("/v1/jobs?user_id=ada", "/v1/events", "/healthz"):
        assert (await http.send("HEAD", path)).status == 200


async def test_a_body_that_does_not_come_is_waited_for_no_longer(
    server: ServerProcess, start_gateway
) -> None:
    http = await start_gateway(server.target, read_timeout=0.1)
    headers = {"Content-Type": "application/json", "Content-Length": "100"}
    for method, status in (("POST", 408), ("DELETE", 408), ("GET", 400)):
        path = "/v1/jobs" if method != "DELETE" else "/v1/jobs/a"
        answer = await http.send(method, path, headers, b"{")
        assert answer.problem["status"] == status


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_body_that_never_ends_is_not_kept(http: Http, method: str) -> None:
    _, writer = await http.open(method, "/v1/jobs", {"Transfer-Encoding": "chunked"})
    with pytest.raises(ConnectionError):
        for _ in range(8 * MAX_SKIPPED // MAX_BODY):
            writer.write(f"{MAX_BODY:x}\r\n".encode() + bytes(MAX_BODY) + b"\r\n")
            await writer.drain()
    writer.close()


async def test_a_large_body_that_is_parsed_holds_up_no_other_request(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, released = threading.Event(), threading.Event()

    def parse(*arguments: Any) -> Message:
        begun.set()
        assert released.wait(10)
        return ParseDict(*arguments)

    monkeypatch.setattr(requests, "ParseDict", parse)
    large = {**NEW, "parameters": {"x": "x" * INLINE_BYTES}}
    posting = asyncio.create_task(http.post("/v1/jobs", large))
    await asyncio.to_thread(begun.wait)
    assert (await http.get("/healthz")).status == 200
    released.set()
    assert (await posting).status == 201


async def test_a_creation_that_the_gateway_repeats_makes_one_job(start_gateway) -> None:
    received: list[CreateJobRequest] = []

    class Restarting(FaultServer):
        def CreateJob(  # noqa: N802
            self, request: CreateJobRequest, context: grpc.ServicerContext
        ) -> CreateJobResponse:
            received.append(request)
            if len(received) == 1:
                context.abort(grpc.StatusCode.UNAVAILABLE, "after the commit")
            return CreateJobResponse()

    service = Restarting()
    try:
        http = await start_gateway(service.target)
        assert (await http.post("/v1/jobs", NEW)).status == 201
    finally:
        await asyncio.to_thread(service.stop)
    first, second = received
    assert first.request_id == second.request_id != ""


async def test_a_service_that_is_away_is_said_to_be(start_gateway) -> None:
    http = await start_gateway("127.0.0.1:1", timeout=0.3)
    answers = await asyncio.gather(
        http.get("/v1/jobs"), http.get("/v1/events"), http.get("/v1/jobs/a/events")
    )
    assert {answer.problem["status"] for answer in answers} <= {503, 504}
    assert (await http.get("/healthz")).status == 200
