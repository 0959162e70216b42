"""Who calls is the service's to judge: the gateway passes on what a request brings."""

import ipaddress
import logging
from collections.abc import Awaitable, Callable

import grpc
import pytest

from jobledger_server.app import App
from tests.support.access_file import rule
from tests.support.rpc_caller import Caller
from tests.support.server_process import ServerProcess

RULES = (
    rule("ada", 'roles = ["owner"]\nusers = ["ada"]', "ada-token")
    + rule("bob", 'roles = ["owner"]\nusers = ["bob"]', "bob-token")
    + rule("boss", 'roles = ["operator"]', "boss-token")
)


@pytest.fixture
async def guarded(start_with: Callable[..., Awaitable[App]]) -> App:
    """Return a server with an access file."""
    return await start_with(RULES)


def header(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_requests_own_token_decides(guarded: App, start_gateway) -> None:
    http = await start_gateway(guarded.address)
    for path in ("/v1/jobs?user_id=ada", "/v1/events?user_id=ada"):
        nobody = await http.get(path)
        assert (nobody.problem["status"], nobody.headers["www-authenticate"]) == (401, "Bearer")
        assert (await http.get(path, **header("wrong"))).problem["reason"] == "UNAUTHENTICATED"
        assert (await http.get(path, **header("bob-token"))).problem["reason"] == "ACCESS_DENIED"
    assert (await http.get("/v1/jobs?user_id=ada", **header("ada-token"))).status == 200
    assert (await http.get("/v1/stats", **header("ada-token"))).problem["status"] == 403
    assert (await http.get("/v1/stats", **header("boss-token"))).status == 200


async def test_a_large_body_is_not_read_before_its_caller_is_known(
    guarded: App, start_gateway
) -> None:
    http = await start_gateway(guarded.address)
    headers = {"Content-Type": "application/json"}
    no_json = b"{" * 100_000
    for unknown in ({}, header("wrong")):
        answer = await http.send("POST", "/v1/jobs", {**headers, **unknown}, no_json)
        assert (answer.problem["status"], answer.headers["www-authenticate"]) == (401, "Bearer")
    # The boss may create no jobs, which its own call says.
    for known in (header("ada-token"), header("boss-token")):
        answer = await http.send("POST", "/v1/jobs", {**headers, **known}, no_json)
        assert answer.problem["status"] == 400


async def test_the_gateways_token_is_for_requests_that_bring_none(
    guarded: App, start_gateway
) -> None:
    http = await start_gateway(guarded.address, token="ada-token")
    path = "/v1/jobs?user_id=ada"
    assert (await http.get(path)).status == 200
    assert (await http.get(path, **header("bob-token"))).status == 403
    assert (await http.get(path, Authorization="Basic YTpi")).status == 401
    async with http.events("/v1/events?user_id=ada") as events:
        assert (await events.news()).data == {"synced": True}


async def test_a_watch_token_in_the_url_reads_one_job(
    guarded: App, start_gateway, caplog: pytest.LogCaptureFixture
) -> None:
    http = await start_gateway(guarded.address, access_log=True)
    ada = header("ada-token")
    new = {"userId": "ada", "jobType": "render", "parameters": {"secret": 1}}
    job, other = [(await http.post("/v1/jobs", new, **ada)).json()["job"]["id"] for _ in range(2)]
    made = await http.post("/v1/watchTokens", {"userId": "ada", "jobId": job, "ttl": "60s"}, **ada)
    token = made.json()["token"]
    caplog.set_level(logging.DEBUG)

    async with http.events(f"/v1/jobs/{job}/events?token={token}") as events:
        assert "parameters" not in (await events.news()).data["job"]
    async with http.events(f"/v1/events?token={token}") as events:
        listed = (await events.news()).data["changes"]["changes"]
        assert [each["job"]["id"] for each in listed] == [job]
    read = await http.get(f"/v1/jobs/{job}?token={token}&view=FULL")
    assert "parameters" not in read.json()["job"]
    assert (await http.get(f"/v1/jobs/{job}", **header(token))).json() == read.json()

    refused = [
        await http.get(f"/v1/jobs/{other}/events?token={token}"),
        await http.get(f"/v1/events?token={token}&user_id=bob"),
        await http.get(f"/v1/events?token={token}&job_ids={other}"),
        await http.get(f"/v1/jobs?token={token}"),
        await http.get(f"/v1/jobs/{job}/transitions?token={token}&user_id=ada"),
        await http.post(f"/v1/jobs/{job}:cancel?token={token}", {"userId": "ada"}),
        await http.post(f"/v1/jobs/{job}:cancel", {"userId": "ada"}, **header(token)),
        await http.post("/v1/watchTokens", {"userId": "ada", "jobId": job}, **header(token)),
        await http.send("DELETE", f"/v1/jobs/{job}?token={token}&user_id=ada"),
    ]
    assert {answer.problem["status"] for answer in refused} <= {401, 403, 404}

    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert len([line for line in lines if "/events " in line]) == 5
    assert token not in caplog.text


async def test_only_a_watch_token_is_taken_from_a_url(guarded: App, start_gateway) -> None:
    http = await start_gateway(guarded.address, token="ada-token")
    path = "/v1/jobs?user_id=ada"
    assert (await http.get(f"{path}&token=ada-token")).problem["status"] == 401
    assert (await http.get(f"{path}&token=jlw_x")).problem["status"] == 401
    assert (await http.get(f"{path}&token=")).problem["status"] == 401
    twice = await http.get(f"{path}&token=jlw_x", **header("ada-token"))
    assert twice.problem["status"] == 400


async def test_a_stream_ends_when_its_token_is_revoked(guarded: App, start_gateway) -> None:
    http = await start_gateway(guarded.address)
    ada = header("ada-token")
    made = await http.post("/v1/watchTokens", {"userId": "ada", "labels": {"a": "b"}}, **ada)
    path = f"/v1/events?token={made.json()['token']}"
    async with http.events(path) as events:
        assert (await events.news()).data == {"synced": True}
        async with grpc.aio.insecure_channel(guarded.address) as channel:
            await Caller(channel, token="boss-token").RevokeWatchTokens()
        event = await events.news()
        while event.name == "upstream":
            event = await events.news()
        assert (event.name, event.data["status"]) == ("error", 401)
        assert await events.event() is None
    # What an EventSource does next, which ends it.
    assert (await http.get(path)).problem["status"] == 401


@pytest.mark.parametrize(
    ("host", "proxies", "believed"),
    [("127.0.0.1", "127.0.0.1", True), ("::", "127.0.0.0/8", True), ("::", "10.0.0.1", False)],
)
async def test_a_proxy_says_who_calls_also_if_ipv4_comes_over_ipv6(
    server: ServerProcess,
    start_gateway,
    caplog: pytest.LogCaptureFixture,
    host: str,
    proxies: str,
    believed: bool,  # noqa: FBT001
) -> None:
    networks = (ipaddress.ip_network(proxies),)
    http = await start_gateway(server.target, host=host, access_log=True, proxies=networks)
    caplog.set_level(logging.INFO, "uvicorn.access")
    await http.get("/healthz", X_Forwarded_For="192.0.2.7")
    (line,) = (each.getMessage() for each in caplog.records if each.name == "uvicorn.access")
    assert ("192.0.2.7" in line) is believed
