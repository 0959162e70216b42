"""What receivers of webhooks get: every end, at least once, in order for each job, signed."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from jobledger import AsyncClient, JobStatus, Webhook
from jobledger.webhooks import InvalidSignature, verify
from jobledger_gateway.webhooks import pending
from jobledger_gateway.webhooks.addresses import UNKNOWN
from jobledger_gateway.webhooks.attempts import CONCURRENT, Attempts
from jobledger_gateway.webhooks.state import QUIET_SAVE_SECONDS
from jobledger_server.domain.limits import MAX_PENDING_DELIVERIES, WEBHOOK_LEASE_SECONDS
from jobledger_server.rpc.webhooks import delivery_service
from tests.e2e.webhooks.conftest import delivering
from tests.support.rpc_caller import calling
from tests.support.server_process import ServerProcess
from tests.support.webhook_receiver import Answering, Received, Receiver, accepted, always


@pytest.fixture
async def client(app: Any) -> Any:
    async with AsyncClient(app.address, user_id="ada") as client:
        yield client


async def ended(client: AsyncClient, job_type: str = "render", **fields: Any) -> str:
    """Create a job, run it to its end, and return its id."""
    job = await client.create_job(job_type, **fields)
    started = await client.transition_job(job.id, "PROCESSING")
    await client.mark_completed(job.id, attempt=started.attempt)
    return job.id


async def the_webhook(client: AsyncClient) -> Webhook:
    """Read the only webhook."""
    (webhook,) = [each async for each in client.list_webhooks()]
    return webhook


async def until(client: AsyncClient, reached: Callable[[Webhook], object]) -> None:
    """Wait until the only webhook is so."""
    while not reached(await the_webhook(client)):
        await asyncio.sleep(0.05)


def job_ids(received: list[Received]) -> set[str]:
    return {each.job_id for each in received}


def fail_once() -> Answering:
    """Refuse the first attempt of each delivery."""
    failed: set[str] = set()

    async def answer(request: Received) -> int:
        if request.id in failed:
            return 200
        failed.add(request.id)
        return 500

    return answer


async def test_an_end_is_posted_as_a_signed_cloud_event(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    created = await client.create_webhook(receiver.url)
    async with delivering(app.address):
        job_id = await ended(client, labels={"team": "blue"}, parameters={"secret": 1})
        await receiver.until(lambda: bool(receiver.succeeded))
    (request,) = receiver.succeeded
    assert request.path == "/hook?a=1"
    assert request.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert request.is_signed(created.secret)
    assert verify(created.secret, request.headers, request.body) == request.event
    event = request.event
    assert event["id"] == request.id == f"{job_id}-{request.version}"
    assert (event["specversion"], event["type"]) == ("1.0", "dev.jobledger.job.completed")
    assert event["subject"] == event["data"]["job"]["id"] == job_id
    assert event["data"]["job"]["labels"] == {"team": "blue"}
    assert "parameters" not in event["data"]["job"]
    assert event["time"] == event["data"]["transition"]["time"]


async def test_a_webhook_gets_its_owner_types_and_labels_and_ends_only(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    await client.create_webhook(receiver.url, job_types=["render"], labels={"team": "blue"})
    blue = {"labels": {"team": "blue"}}
    await ended(client, "mail", **blue)
    await ended(client, "render")
    await ended(client, "render", user_id="bob", **blue)
    wanted = await ended(client, "render", **blue)
    async with delivering(app.address):
        await receiver.until(lambda: wanted in job_ids(receiver.succeeded))
    assert job_ids(receiver.received) == {wanted}
    assert len(receiver.received) == 1


async def test_all_transitions_come_in_order_though_the_first_attempts_fail(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    receiver.answer = fail_once()
    await client.create_webhook(
        receiver.url, transitions=[JobStatus.PROCESSING, JobStatus.COMPLETED]
    )
    async with delivering(app.address):
        job_id = await ended(client)
        await receiver.until(lambda: len(receiver.succeeded) == 2)
    assert job_ids(receiver.succeeded) == {job_id}
    versions = [request.version for request in receiver.succeeded]
    assert versions == sorted(versions)
    types = [request.event["type"].rpartition(".")[2] for request in receiver.succeeded]
    assert types == ["processing", "completed"]
    # The same event, whatever the attempt, with a time and a signature of its own.
    assert len({request.id for request in receiver.received}) == 2


async def test_no_event_overtakes_an_earlier_one_of_its_job(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    async def answer(request: Received) -> int:
        failing = request.event["type"].endswith(".processing") and len(receiver.received) < 4
        return 500 if failing else 204

    receiver.answer = answer
    await client.create_webhook(
        receiver.url, transitions=[JobStatus.PROCESSING, JobStatus.COMPLETED]
    )
    async with delivering(app.address, max_backoff=0.05):
        await ended(client)
        await receiver.until(lambda: len(receiver.succeeded) == 2)
    types = [request.event["type"].rpartition(".")[2] for request in receiver.received]
    assert types == ["processing"] * 4 + ["completed"]


async def test_a_webhook_gets_transitions_to_the_states_that_it_names(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    await client.create_webhook(receiver.url, transitions=JobStatus.PROCESSING)
    job_ids_of = {await ended(client) for _ in range(2)}
    async with delivering(app.address):
        await receiver.until(lambda: job_ids(receiver.succeeded) == job_ids_of)
    types = [request.event["type"] for request in receiver.received]
    assert types == ["dev.jobledger.job.processing"] * 2


async def test_one_event_that_fails_holds_up_no_other_job(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    poison = await ended(client)

    async def answer(request: Received) -> int:
        return 500 if request.job_id == poison else 204

    receiver.answer = answer
    await client.create_webhook(receiver.url)
    poison = await ended(client)
    others = {await ended(client) for _ in range(5)}
    async with delivering(app.address, give_up=0.5):
        await receiver.until(lambda: others <= job_ids(receiver.succeeded))
        others = set()
        while not (await the_webhook(client)).given_up:
            others.add(await ended(client))
            await receiver.until(lambda: others <= job_ids(receiver.succeeded))
    webhook = await the_webhook(client)
    assert (webhook.given_up, webhook.pending, webhook.disable_reason) == (1, 0, "")
    assert webhook.last_failure == "status 500"


async def test_a_receiver_that_never_answers_well_is_disabled_and_loses_nothing(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    receiver.answer = always(503)
    created = await client.create_webhook(receiver.url)
    wanted = {await ended(client) for _ in range(3)}
    async with delivering(app.address, give_up=0.2):
        await until(client, lambda each: each.disable_reason)
        wanted.add(await ended(client))
        receiver.answer = accepted
        enabled = await client.enable_webhook(created.webhook.id)
        assert enabled.disable_time is None
        await receiver.until(lambda: wanted <= job_ids(receiver.succeeded))
    assert (await the_webhook(client)).given_up == 0


async def test_an_enabled_webhook_is_tried_again_as_long_as_a_new_one(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    receiver.answer = always(503)
    created = await client.create_webhook(receiver.url)
    wanted = {await ended(client) for _ in range(3)}
    async with delivering(app.address, give_up=0.2):
        await until(client, lambda each: each.disable_reason)
    await client.enable_webhook(created.webhook.id)
    async with calling(app.address) as call:  # as if that were long ago
        (claimed,) = (await call.ClaimWebhooks(deliverer_id="d")).webhooks
        assert claimed.pending
        for each in claimed.pending:
            each.first_time.FromSeconds(0)
        await call.SaveWebhook(
            webhook_id=claimed.webhook.id,
            generation=claimed.generation,
            cursor=claimed.cursor,
            pending=claimed.pending,
            release=True,
        )
    receiver.answer = fail_once()
    async with delivering(app.address):
        await receiver.until(lambda: wanted <= job_ids(receiver.succeeded))
    webhook = await the_webhook(client)
    assert (webhook.given_up, webhook.disable_reason) == (0, "")


async def test_a_receiver_that_asks_to_wait_is_not_called_before(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    times: list[float] = []

    async def busy(_: Received) -> Any:
        times.append(time.monotonic())
        return (429, [("retry-after", "1")]) if len(times) == 1 else 204

    receiver.answer = busy
    await client.create_webhook(receiver.url)
    async with delivering(app.address, max_backoff=5.0):
        first = await ended(client)
        await receiver.until(lambda: bool(times))
        second = await ended(client)
        await receiver.until(lambda: {first, second} <= job_ids(receiver.succeeded))
    assert times[1] - times[0] >= 0.9


async def test_an_owner_whose_receivers_hang_has_a_part_of_the_attempts_at_most(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    async with Receiver() as hanging:
        hung = asyncio.Event()

        async def hang(_: Received) -> int:
            if len(hanging.received) == 4:
                hung.set()
            await asyncio.sleep(3600)
            return 200

        hanging.answer = hang
        for _ in range(3):
            await client.create_webhook(hanging.url)
        await client.create_webhook(receiver.url, user_id="bob")
        await asyncio.gather(*(ended(client) for _ in range(10)))
        async with delivering(app.address, at_once=5, at_once_each=4):
            await hung.wait()
            wanted = {await ended(client, user_id="bob") for _ in range(5)}
            await receiver.until(lambda: wanted <= job_ids(receiver.succeeded))
            assert len(hanging.received) == 4


async def test_an_address_that_is_not_permitted_is_not_called(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    await client.create_webhook(receiver.url)
    async with delivering(app.address, networks=()):
        await ended(client)
        await until(client, lambda each: each.last_failure)
    assert not receiver.received
    webhook = await the_webhook(client)
    assert webhook.last_failure == UNKNOWN
    assert webhook.pending == 1


async def test_the_next_deliverer_goes_on_where_the_last_one_ended(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    await client.create_webhook(receiver.url)
    async with delivering(app.address):
        first = await ended(client)
        await until(client, lambda each: each.success_time)  # what was delivered is stored
    await receiver.kill()
    async with delivering(app.address):
        lost = await ended(client)
        await until(client, lambda each: each.pending)
    await receiver.start()
    later = await ended(client)
    async with delivering(app.address):
        await receiver.until(lambda: {lost, later} <= job_ids(receiver.succeeded))
    assert [request.job_id for request in receiver.succeeded].count(first) == 1


async def test_deliveries_that_are_under_way_at_the_end_are_finished_and_not_repeated(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    released = asyncio.Event()

    async def answer_late(_: Received) -> int:
        await released.wait()
        return 200

    receiver.answer = answer_late
    await client.create_webhook(receiver.url)
    wanted = {await ended(client) for _ in range(CONCURRENT + 3)}  # in one message
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(delivering(app.address, end=20.0))
        await receiver.until(lambda: len(receiver.received) >= CONCURRENT)
        ending = asyncio.create_task(stack.aclose())
        await asyncio.sleep(0)
        under_way = list(receiver.received)
        assert not ending.done()
        released.set()
        await ending
    assert job_ids(receiver.succeeded) == job_ids(under_way)
    async with delivering(app.address):
        await receiver.until(lambda: job_ids(receiver.succeeded) == wanted)
        later = await ended(client)
        await receiver.until(lambda: later in job_ids(receiver.succeeded))
    delivered = [each.id for each in receiver.succeeded]
    assert len(delivered) == len(set(delivered))


async def test_a_deleted_job_is_still_delivered(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    receiver.answer = always(500)
    await client.create_webhook(receiver.url)
    async with delivering(app.address, max_backoff=0.05):
        pending = await ended(client)
        await until(client, lambda each: each.pending)
        await client.delete_job(pending)
        receiver.answer = accepted
        await receiver.until(lambda: pending in job_ids(receiver.succeeded))
    event = receiver.succeeded[-1].event
    assert event["type"] == "dev.jobledger.job.completed"
    assert event["data"]["job"]["userId"] == "ada"


@pytest.mark.parametrize(("limit", "most", "held"), [("DELIVERIES", 10, 10), ("BYTES", 1, 1)])
async def test_more_pending_deliveries_than_may_be_wait_in_the_feed(
    app: Any,
    client: AsyncClient,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    most: int,
    held: int,
) -> None:
    assert pending.MAX_DELIVERIES == MAX_PENDING_DELIVERIES == 100
    monkeypatch.setattr(pending, f"MAX_{limit}", most)

    receiver.answer = always(500)
    await client.create_webhook(receiver.url)
    wanted = set(await asyncio.gather(*(ended(client) for _ in range(12))))
    async with delivering(app.address, max_backoff=0.05, end=600.0):  # it does not take the time
        await until(client, lambda each: each.pending >= held)
    assert (await the_webhook(client)).pending == held
    receiver.answer = accepted
    async with delivering(app.address, max_backoff=0.05):
        await receiver.until(lambda: wanted <= job_ids(receiver.succeeded))


async def test_a_bug_in_one_delivery_is_logged_and_stops_no_other(
    app: Any,
    client: AsyncClient,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await client.create_webhook(receiver.url, job_types=["render"])
    broken = await client.create_webhook(receiver.url, job_types=["broken"])
    deliver = Attempts.deliver
    failed = asyncio.Event()

    async def fail_if_broken(self: Attempts, job: Any, transition: Any) -> None:
        if job.job_type == "broken":
            failed.set()
            raise ZeroDivisionError
        await deliver(self, job, transition)

    monkeypatch.setattr(Attempts, "deliver", fail_if_broken)
    # Whoever comes next waits for the lease of the one that failed.
    monkeypatch.setattr(delivery_service, "WEBHOOK_LEASE_SECONDS", 2)
    async with delivering(app.address):
        poison = await ended(client, job_type="broken")
        await failed.wait()
        wanted = {await ended(client, job_type="render")}
        await receiver.until(lambda: wanted <= job_ids(receiver.succeeded))
    assert f"webhook_crashed webhook={broken.webhook.id}" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.setattr(Attempts, "deliver", deliver)
    async with delivering(app.address):
        await receiver.until(lambda: poison in job_ids(receiver.succeeded))


async def test_a_deliverer_that_ends_leaves_all_to_the_others(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    for _ in range(4):
        await client.create_webhook(receiver.url)
    async with calling(app.address) as call:
        async with delivering(app.address):
            await ended(client)
            await receiver.until(lambda: len(receiver.succeeded) == 4)
            while not (first := (await call.ClaimWebhooks(deliverer_id="d")).webhooks):
                pass
        held = [each.webhook.id for each in first]
        async with asyncio.timeout(WEBHOOK_LEASE_SECONDS / 2):
            while len(held) < 4:
                more = await call.ClaimWebhooks(deliverer_id="d", held_ids=held)
                held += [each.webhook.id for each in more.webhooks]


async def test_an_update_and_a_new_secret_reach_a_webhook_that_is_delivered(
    app: Any, client: AsyncClient, receiver: Receiver
) -> None:
    async with Receiver() as other, delivering(app.address):
        created = await client.create_webhook(receiver.url)
        webhook_id = created.webhook.id
        first = await ended(client)
        await receiver.until(lambda: job_ids(receiver.succeeded) == {first})
        rotated = await client.rotate_webhook_secret(webhook_id)
        updated = await client.update_webhook(webhook_id, url=other.url, job_types=["mail"])
        assert updated == await client.get_webhook(webhook_id)
        while not other.received:  # an earlier end may still be posted as before
            wanted = await ended(client, "mail")
            await asyncio.sleep(0.05)
        await other.until(lambda: wanted in job_ids(other.succeeded))
        request = other.received[-1]
        for secret in (created.secret, rotated.secret):
            assert verify(secret, request.headers, request.body) == request.event
        last = await client.rotate_webhook_secret(webhook_id, keep_previous=0)
        while not other.received[-1].is_signed(last.secret):
            await ended(client, "mail")
            await asyncio.sleep(0.05)
        with pytest.raises(InvalidSignature):
            verify(rotated.secret, other.received[-1].headers, other.received[-1].body)


async def test_a_killed_server_loses_no_end(own_server: ServerProcess, receiver: Receiver) -> None:
    async with AsyncClient(own_server.target, user_id="ada") as client:
        await client.create_webhook(receiver.url)
        async with delivering(own_server.target):
            first = await ended(client)
            await receiver.until(lambda: first in job_ids(receiver.succeeded))
            await asyncio.to_thread(own_server.restart)
            second = await ended(client)
            await receiver.until(lambda: second in job_ids(receiver.succeeded))


async def test_a_place_in_the_feed_that_is_lost_is_told_at_once(
    app: Any, receiver: Receiver
) -> None:
    async with calling(app.address) as call:
        await call.CreateWebhook(user_id="ada", url=receiver.url)
        (claimed,) = (await call.ClaimWebhooks(deliverer_id="d")).webhooks
        await call.SaveWebhook(
            webhook_id=claimed.webhook.id,
            generation=claimed.generation,
            cursor="damaged",
            release=True,
        )
    async with AsyncClient(app.address, user_id="ada") as client, delivering(app.address):
        async with asyncio.timeout(QUIET_SAVE_SECONDS / 2):
            await until(client, lambda each: each.last_failure)
        later = await ended(client)
        await receiver.until(lambda: later in job_ids(receiver.succeeded))
