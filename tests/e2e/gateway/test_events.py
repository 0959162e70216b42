"""Event streams: what a browser is sent, and where it resumes."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from jobledger_gateway.limits import OPENING_STREAMS
from tests.support.fault_server import FaultServer, falls_silent
from tests.support.http_client import Event, Http
from tests.support.ports import free_port
from tests.support.rpc_caller import BIG_LABELS, COMPLETED, PROCESSING, Caller, calling
from tests.support.server_process import ServerProcess


async def a_job(rpc: Caller, **fields: object) -> str:
    new = {"user_id": "ada", "job_type": "stream", **fields}
    return (await rpc.CreateJob(**new)).job.id


async def start(rpc: Caller, job_id: str) -> None:
    await rpc.TransitionJob(job_id=job_id, target_status=PROCESSING, worker_id="w")


async def complete(rpc: Caller, job_id: str) -> None:
    await rpc.TransitionJob(job_id=job_id, target_status=COMPLETED, attempt=1)


async def test_a_jobs_stream_goes_from_now_to_its_end(http: Http, rpc: Caller) -> None:
    job_id = await a_job(rpc, parameters={"secret": 1})
    path = f"/v1/jobs/{job_id}/events?user_id=ada"
    async with http.events(path) as events:
        first = await events.event()
        assert (first.name, first.event_id) == ("message", "1")
        assert first.data["job"]["status"] == "JOB_STATUS_QUEUED"
        assert "parameters" not in first.data["job"]
        await start(rpc, job_id)
        started = await events.event()
        assert started.data["transitions"][0]["toStatus"] == "JOB_STATUS_PROCESSING"
        await complete(rpc, job_id)
        last = await events.event()
        assert last.data["job"]["status"] == "JOB_STATUS_COMPLETED"
        assert await events.event() == Event("end", {})
        assert await events.event() is None

    # An EventSource reconnects after the end, and 204 stops it.
    over = await http.get(path, Last_Event_ID=last.event_id)
    assert (over.status, over.body) == (204, b"")


async def test_a_jobs_stream_resumes_after_the_last_event(http: Http, rpc: Caller) -> None:
    job_id = await a_job(rpc)
    await start(rpc, job_id)
    path = f"/v1/jobs/{job_id}/events?user_id=ada&view=FULL"
    async with http.events(f"{path}&last_event_id=1") as events:
        missed = await events.event()
        assert [each["version"] for each in missed.data["transitions"]] == ["2"]
    async with http.events(path, Last_Event_ID=missed.event_id) as events:
        await complete(rpc, job_id)
        news = await events.news()
        assert [each["version"] for each in news.data["transitions"]] == ["3"]


async def test_many_jobs_are_listed_then_followed_and_resumed(http: Http, rpc: Caller) -> None:
    owner = {"user_id": "many"}
    before = await a_job(rpc, **owner)
    path = "/v1/events?user_id=many&job_types=stream"
    async with http.events(path) as events:
        listed = await events.news()
        assert [each["job"]["id"] for each in listed.data["changes"]["changes"]] == [before]
        synced = await events.news()
        assert synced.data == {"synced": True}
        await a_job(rpc, job_type="other", **owner)
        created = await a_job(rpc, **owner)
        change = await events.news()
        assert [each["job"]["id"] for each in change.data["changes"]["changes"]] == [created]

    later = await a_job(rpc, **owner)
    async with http.events(path, Last_Event_ID=change.event_id) as events:
        missed = await events.news()
        assert [each["job"]["id"] for each in missed.data["changes"]["changes"]] == [later]
        assert (await events.news()).data == {"synced": True}


async def test_a_refused_token_leads_to_a_new_listing(http: Http, rpc: Caller) -> None:
    job_id = await a_job(rpc, user_id="reset")
    for token in ("nonsense", "%00"):
        async with http.events(f"/v1/events?user_id=reset&last_event_id={token}") as events:
            assert await events.event() == Event("reset", {})
            listed = await events.news()
            assert [each["job"]["id"] for each in listed.data["changes"]["changes"]] == [job_id]
            assert (await events.news()).data == {"synced": True}


async def test_an_error_before_the_first_event_has_its_status(http: Http, rpc: Caller) -> None:
    job_id = await a_job(rpc)
    path = f"/v1/jobs/{job_id}/events?user_id=ada"
    for last in ("-1", "x", "1" * 30, "%C2%B2"):
        refused = await http.get(f"{path}&last_event_id={last}")
        assert refused.problem["violations"][0]["field"] == "last_event_id"
    assert (await http.get("/v1/jobs/none/events?user_id=ada")).problem["status"] == 404
    assert (await http.get("/v1/events?user_id=ada&nonsense=1")).problem["status"] == 400
    assert (await http.get("/v1/events?job_types=%20")).problem["reason"] == "INVALID_FIELD"


async def test_a_silent_stream_has_heartbeats(server: ServerProcess, rpc: Caller, start_gateway):
    http = await start_gateway(server.target, heartbeat=0.05)
    job_id = await a_job(rpc)
    async with http.events(f"/v1/jobs/{job_id}/events?user_id=ada") as events:
        assert (await events.event()).name == "message"
        for _ in range(3):
            assert await events.event() == Event("comment")


async def test_heartbeats_of_the_service_are_passed_on(start, start_gateway) -> None:
    app = await start(heartbeat=0.1)
    http = await start_gateway(app.address, heartbeat=3600.0)
    async with calling(app.address) as call:
        job_id = await a_job(call)
    async with http.events(f"/v1/jobs/{job_id}/events?user_id=ada") as events:
        assert (await events.event()).name == "message"
        async with asyncio.timeout(30):
            for _ in range(3):
                assert await events.event() == Event("comment")


async def test_streams_are_limited_in_all_and_for_each_client(
    server: ServerProcess, start_gateway
) -> None:
    http = await start_gateway(server.target, max_streams=2, max_client_streams=1)
    path, other = "/v1/events?user_id=ada", "/v1/events?user_id=ada&token=jlw_other"
    async with http.events(path) as events:
        await events.event()
        refused = await http.get(path)
        assert (refused.problem["status"], refused.headers["retry-after"]) == (429, "5")
        # Another token, another client: the service refuses this one.
        assert (await http.get(other)).problem["status"] == 401
    async with asyncio.timeout(30):
        while (await http.send("HEAD", path)).status != 200:
            pass  # until the gateway has noticed that the stream is closed


async def test_streams_of_an_address_are_limited_whatever_their_tokens(
    server: ServerProcess, start_gateway
) -> None:
    http = await start_gateway(server.target, max_client_streams=1, max_address_streams=2)
    path = "/v1/events?user_id=ada"
    async with (
        http.events(path, Authorization="Bearer made-up-1") as one,
        http.events(path, Authorization="Bearer made-up-2") as two,
    ):
        assert await one.event() == await two.event()
        refused = await http.get(path, Authorization="Bearer made-up-3")
        assert refused.problem["detail"] == "this address has too many event streams"
        assert (refused.status, refused.headers["retry-after"]) == (429, "5")
        async with Http(http.port, address="127.0.0.2").events(path) as other:
            await other.event()


async def test_streams_that_are_being_opened_are_limited_and_take_no_place_of_a_client(
    start_gateway,
) -> None:
    asked: set[str] = set()
    at_once: set[str] = set()
    most = 0

    def never_answers(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        nonlocal most
        asked.add(request.job_id)
        if request.job_id != "other":
            at_once.add(request.job_id)
            most = max(most, len(at_once))
            context.add_callback(lambda: at_once.discard(request.job_id))
        return falls_silent(request, context)

    service = FaultServer()
    service.scripts = [never_answers] * 100
    try:
        http = await start_gateway(service.target, max_client_streams=1, timeout=1)
        other = Http(http.port, address="127.0.0.2")
        answers = await asyncio.gather(
            *(http.get(f"/v1/jobs/{number}/events") for number in range(2 * OPENING_STREAMS)),
            other.get("/v1/jobs/other/events"),
        )
    finally:
        await asyncio.to_thread(service.stop)
    # Not 429: none of the client's streams was answered.
    assert {answer.problem["status"] for answer in answers} <= {503, 504}
    assert most == OPENING_STREAMS
    assert "other" in asked


async def test_a_client_that_reads_nothing_is_dropped_and_holds_up_nobody(
    server: ServerProcess, rpc: Caller, start_gateway
) -> None:
    http = await start_gateway(server.target, max_streams=2, heartbeat=0.05)
    path = "/v1/events?user_id=frozen"
    _, frozen = await http.open("GET", path)
    frozen.transport.pause_reading()
    async with http.events(path) as events:
        assert (await events.news()).data == {"synced": True}
        big = {"job_type": "stream", "labels": BIG_LABELS}
        for _ in range(20):  # together more than the sockets between the two hold
            await rpc.BatchCreateJobs(user_id="frozen", requests=[big] * 20)
        seen = 0
        while seen < 400:
            seen += len((await events.news()).data["changes"]["changes"])
        # The kernel ends the connection of the other one, whose place becomes free.
        async with asyncio.timeout(60):
            while (await http.send("HEAD", path)).status != 200:
                await asyncio.sleep(0.05)
    frozen.close()


async def test_a_gateway_that_stops_ends_its_streams(server: ServerProcess, start_gateway) -> None:
    http = await start_gateway(server.target)
    async with http.events("/v1/events?user_id=ada") as events:
        while await events.event() is not None:
            http.stop()


@pytest.mark.parametrize("stop", ["kill", "terminate"])
async def test_a_server_that_ends_and_comes_back_costs_no_event(
    own_server: ServerProcess, start_gateway, stop: str
) -> None:
    http = await start_gateway(own_server.target)
    async with http.events("/v1/events?user_id=ada") as events:
        assert (await events.news()).data == {"synced": True}
        await asyncio.to_thread(getattr(own_server, stop))
        await asyncio.to_thread(own_server.start)
        async with calling(own_server.target) as call:
            job_id = await a_job(call)
        told = []
        while "changes" not in (event := await events.news()).data:
            told.append((event.name, event.data))
        assert [each["job"]["id"] for each in event.data["changes"]["changes"]] == [job_id]
        lost, found = (("upstream", {"connected": each}) for each in (False, True))
        assert told in ([lost, found], [] if stop == "terminate" else [lost, found])


async def test_an_event_source_comes_again_as_long_as_the_service_is_away(start_gateway) -> None:
    http = await start_gateway(f"127.0.0.1:{free_port()}", timeout=0.5)
    path = "/v1/jobs/x/events?user_id=ada"
    async with http.events(path, Last_Event_ID="3") as events:  # as an EventSource reconnects
        assert await events.event() == Event("upstream", {"connected": False})
        assert await events.event() is None
    assert (await http.get(path)).status == 503


async def test_the_maximum_age_of_a_stream_is_not_seen(start, start_gateway) -> None:
    app = await start(max_watch_age=0.2, heartbeat=0.1)
    http = await start_gateway(app.address)
    async with http.events("/v1/events?user_id=ada") as events:
        # On a busy machine there are heartbeats before it.
        while (event := await events.event()).data is None:
            pass
        tokens = {event.event_id}
        # A heartbeat and each reconnection say where to resume, and nothing else.
        for _ in range(20):
            event = await events.event()
            assert (event.name, event.data) == ("message", None)
            tokens.add(event.event_id)
        assert tokens.isdisjoint({"", None})
