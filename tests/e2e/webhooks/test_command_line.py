"""Webhooks as users make them: `jobledger webhook`, and a gateway that delivers."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
from typing import Any

from jobledger import AsyncClient, JobStatus
from tests.support import forked
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess
from tests.support.webhook_receiver import Receiver, always

PATHS = ("/healthz", "/", "/openapi.json", "/v1/jobs")

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def jobledger(*arguments: str, **environment: str) -> tuple[int, str]:
    environment = {**os.environ, "XDG_CONFIG_HOME": "/does/not/exist", **environment}
    run = await asyncio.to_thread(forked.run, "jobledger", *arguments, env=environment)
    return run.returncode, run.stdout


def status_of(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    with contextlib.closing(connection):
        return connection.getresponse().status


async def test_a_webhook_is_made_and_delivered_by_commands(
    own_server: ServerProcess, receiver: Receiver
) -> None:
    service = {"JOBLEDGER_SERVER": own_server.target, "JOBLEDGER_USER": "ada"}

    async def webhook(*arguments: str) -> Any:
        code, out = await jobledger("webhook", *arguments, **service)
        assert code == 0, out
        return out

    created = json.loads(await webhook("create", receiver.url, "--type", "render", "--json"))
    webhook_id = created["webhook"]["id"]
    arguments = (
        *("--target", own_server.target, "--listen", "127.0.0.1:0"),
        *("--webhooks", "--webhook-allow-network", "127.0.0.0/8"),
    )
    gateway = forked.Piped("jobledger-gateway", arguments, env=os.environ)
    try:
        async with AsyncClient(own_server.target, user_id="ada") as client:
            for _ in range(2):
                job = await client.create_job("render")
                await client.transition_job(job.id, JobStatus.PROCESSING)
                await client.mark_completed(job.id, attempt=1)
                await receiver.until(
                    lambda job_id=job.id: (
                        receiver.received[-1:] != [] and (receiver.received[-1].job_id == job_id)
                    )
                )
                receiver.answer = always(410)
        assert receiver.received[0].is_signed(created["secret"])
        rotated = await webhook("rotate", webhook_id, "--keep-previous", "0s", "--json")
        assert json.loads(rotated)["secret"] not in created["secret"]
        await webhook("update", webhook_id, "--all-types", "--label", "team=blue")
        found = json.loads(await webhook("get", webhook_id, "--json"))
        assert (found["job_types"], found["labels"]) == ([], {"team": "blue"})
        assert (found["url"], found["transitions"]) == (receiver.url, [])
        await webhook("update", webhook_id, "--transition", "failed", "--transition", "PROCESSING")
        found = json.loads(await webhook("get", webhook_id, "--json"))
        assert found["transitions"] == ["PROCESSING", "FAILED"]
        await webhook("update", webhook_id, "--only-ends")
        assert json.loads(await webhook("get", webhook_id, "--json"))["transitions"] == []
        while "disabled" not in (listed := await webhook("list")):
            pass
        assert webhook_id in listed
        assert "410" in listed
        assert "enabled" in await webhook("enable", webhook_id)
        assert await webhook("delete", webhook_id) == f"deleted {webhook_id}\n"
        assert webhook_id not in await webhook("list")
    finally:
        gateway.send_signal(signal.SIGTERM)
        _, said = await asyncio.to_thread(gateway.communicate)
        assert gateway.returncode == 0, said


async def test_a_gateway_for_webhooks_only_delivers_them_and_serves_no_browsers(
    own_server: ServerProcess, receiver: Receiver
) -> None:
    port = free_port()
    arguments = (
        *("--target", own_server.target, "--listen", f"127.0.0.1:{port}"),
        *("--webhooks-only", "--webhook-allow-network", "127.0.0.0/8"),
    )
    gateway = forked.Piped("jobledger-gateway", arguments, env=os.environ)
    try:
        async with AsyncClient(own_server.target, user_id="ada") as client:
            await client.create_webhook(receiver.url)
            job = await client.create_job("render")
            await client.transition_job(job.id, JobStatus.PROCESSING)
            await client.mark_completed(job.id, attempt=1)
            await receiver.until(lambda: bool(receiver.succeeded))
        found = {path: await asyncio.to_thread(status_of, port, path) for path in PATHS}
        assert found == {"/healthz": 200, "/": 404, "/openapi.json": 404, "/v1/jobs": 404}
    finally:
        gateway.send_signal(signal.SIGTERM)
        _, said = await asyncio.to_thread(gateway.communicate)
        assert gateway.returncode == 0, said


async def test_a_test_shows_the_request_and_the_answer(receiver: Receiver) -> None:
    secret = {"JOBLEDGER_WEBHOOK_SECRET": SECRET}
    code, out = await jobledger("webhook", "test", receiver.url, **secret)
    assert code == 0
    (request,) = receiver.received
    assert request.is_signed(SECRET)
    assert request.event["type"] == "dev.jobledger.job.completed"
    for line in ("> POST /hook?a=1", f"> webhook-id: {request.id}", "< 204 Any"):
        assert line in out.splitlines()
    code, _ = await jobledger("webhook", "test", "http://faß.de/", **secret)
    assert code == 2
    receiver.answer = always(500)
    assert (await jobledger("webhook", "test", receiver.url, **secret))[0] == 6
    await receiver.kill()
    code, out = await jobledger("webhook", "test", receiver.url, **secret)
    assert code == 6
    assert "no answer" in out


async def test_only_private_networks_can_be_permitted() -> None:
    for network in ("169.254.0.0/16", "10.0.0.0/7"):
        arguments = ("--webhooks", "--webhook-allow-network", network)
        run = await asyncio.to_thread(
            forked.run, "jobledger-gateway", *arguments, env=dict(os.environ)
        )
        assert run.returncode == 2
        assert network in run.stderr
