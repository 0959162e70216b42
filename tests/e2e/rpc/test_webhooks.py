"""WebhookService for owners, and WebhookDeliveryService for gateways."""

from functools import partial
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2 as internal
from jobledger.v1 import job_pb2
from jobledger_server.ledger.ids import IdSource
from tests.support.databases import both_databases
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import FAILED, PROCESSING, QUEUED, Caller, refusal

URL = "https://example.com/hook"
NOW = Timestamp(seconds=1_700_000_000)


def pending(version: int = 3) -> internal.PendingDelivery:
    transition = job_pb2.JobTransition(job_id=IdSource().new_id(1), version=version)
    return internal.PendingDelivery(
        transition=transition,
        user_id="ada",
        job_type="render",
        attempts=1,
        first_time=NOW,
        next_time=NOW,
    )


async def claimed(call: Caller, deliverer: str = "d") -> Any:
    (one,) = (await call.ClaimWebhooks(deliverer_id=deliverer)).webhooks
    return one


@both_databases
async def test_a_webhook_is_created_listed_and_deleted(call: Caller) -> None:
    created = await call.CreateWebhook(
        user_id="ada", url=URL, job_types=["b", "a"], labels={"team": "blue"}
    )
    webhook = created.webhook
    assert (webhook.url, webhook.job_types, dict(webhook.labels)) == (
        URL,
        ["a", "b"],
        {"team": "blue"},
    )
    assert created.secret.startswith("whsec_")
    await call.CreateWebhook(user_id="bob", url=URL)
    assert [each.id for each in (await call.ListWebhooks(user_id="ada")).webhooks] == [webhook.id]
    first = await call.ListWebhooks(page_size=1)
    rest = await call.ListWebhooks(page_size=1, page_token=first.next_page_token)
    assert [each.user_id for each in (*first.webhooks, *rest.webhooks)] == ["ada", "bob"]
    assert not rest.next_page_token
    for user_id in ("bob", "carol"):
        gone = await refusal(call.DeleteWebhook(webhook_id=webhook.id, user_id=user_id))
        assert (gone.code, gone.reason) == (StatusCode.NOT_FOUND, "WEBHOOK_NOT_FOUND")
    await call.DeleteWebhook(webhook_id=webhook.id, user_id="ada")
    assert not (await call.ListWebhooks(user_id="ada")).webhooks


async def test_one_webhook_is_read_by_its_owner(call: Caller) -> None:
    created = (await call.CreateWebhook(user_id="ada", url=URL)).webhook
    for user_id in ("ada", ""):
        assert (await call.GetWebhook(webhook_id=created.id, user_id=user_id)).webhook == created
    for method in (call.GetWebhook, call.RotateSecret):
        gone = await refusal(method(webhook_id=created.id, user_id="bob"))
        assert (gone.code, gone.reason) == (StatusCode.NOT_FOUND, "WEBHOOK_NOT_FOUND")


async def test_an_update_changes_what_its_mask_names(call: Caller) -> None:
    created = await call.CreateWebhook(user_id="ada", url=URL, job_types=["a"], labels={"k": "v"})
    webhook_id = created.webhook.id

    async def update(*paths: str, **fields: Any) -> Any:
        mask = FieldMask(paths=paths)
        request = {"webhook_id": webhook_id, "user_id": "ada", "update_mask": mask, **fields}
        return (await call.UpdateWebhook(**request)).webhook

    updated = await update(
        "job_types", "transitions", transitions=[FAILED, PROCESSING], url="ignored"
    )
    assert (updated.url, list(updated.job_types), dict(updated.labels)) == (URL, [], {"k": "v"})
    assert list(updated.transitions) == [PROCESSING, FAILED]
    for paths, field in (((), "update_mask"), (("id",), "update_mask"), (("url",), "url")):
        assert field in (await refusal(update(*paths, url="http://169.254.169.254/"))).message
    assert (await call.GetWebhook(webhook_id=webhook_id)).webhook == updated


async def test_a_webhook_is_for_ends_or_for_the_states_that_it_names_each_once(
    call: Caller,
) -> None:
    ends = (await call.CreateWebhook(url=URL)).webhook
    assert list(ends.transitions) == []
    some = {"transitions": [FAILED, PROCESSING, FAILED], "request_id": "r"}
    named = (await call.CreateWebhook(url=URL, **some)).webhook
    assert list(named.transitions) == [PROCESSING, FAILED]
    repeated = {"transitions": [PROCESSING, FAILED], "request_id": "r"}
    assert (await call.CreateWebhook(url=URL, **repeated)).webhook == named
    other = await refusal(call.CreateWebhook(url=URL, transitions=[FAILED], request_id="r"))
    assert other.reason == "REQUEST_ID_REUSED"
    mask = FieldMask(paths=["transitions"])
    updated = await call.UpdateWebhook(webhook_id=named.id, update_mask=mask)
    assert list(updated.webhook.transitions) == []
    for bad in ([0], [QUEUED], [9]):
        refused = await refusal(call.CreateWebhook(url=URL, transitions=bad))
        (violation,) = refused.details["BadRequest"].field_violations
        assert (refused.reason, violation.field) == ("INVALID_FIELD", "transitions")


async def test_an_update_goes_on_where_the_webhook_was(call: Caller) -> None:
    created = (await call.CreateWebhook(user_id="ada", url=URL, job_types=["mail"])).webhook
    job = await call.running()
    await call.MarkCompleted(job_id=job.id, attempt=1)
    mask = FieldMask(paths=["job_types"])
    await call.UpdateWebhook(webhook_id=created.id, update_mask=mask, job_types=["render"])
    one = await claimed(call)
    messages = call.WatchJobs(user_id="ada", job_types=["render"], resume_token=one.cursor)
    changes = (await messages.read()).changes.changes
    messages.cancel()
    assert {change.job.id for change in changes} == {job.id}


async def test_a_rotated_secret_is_the_previous_one_for_a_while(call: Caller) -> None:
    created = await call.CreateWebhook(user_id="ada", url=URL)
    rotate = partial(call.RotateSecret, webhook_id=created.webhook.id)
    rotated = await rotate(request_id="r")
    assert rotated.secret != created.secret
    assert await rotate(request_id="r") == rotated
    one = await claimed(call)
    assert (one.secret, one.previous_secret) == (rotated.secret, created.secret)
    lasts = one.webhook.previous_secret_expire_time.seconds - created.webhook.create_time.seconds
    assert abs(lasts - 24 * 3600) < 60
    last = await rotate(keep_previous=Duration())
    reused = await refusal(rotate(request_id="r"))
    assert (reused.code, reused.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert "by an earlier rotation" in reused.message
    one = await claimed(call)
    assert (one.secret, one.previous_secret) == (last.secret, "")
    assert not one.webhook.HasField("previous_secret_expire_time")
    invalid = await refusal(rotate(keep_previous=Duration(seconds=7 * 24 * 3600 + 1)))
    assert "keep_previous" in invalid.message


REFUSED_URLS = [
    *("", "ftp://example.com", "https://ada:secret@example.com", "https://example.com/#part"),
    *("https://example.com/" + "a" * 2048, "https://example.com:0/", "http://8.8.8.8/"),
    *("http://169.254.169.254/latest/", "https://169.254.169.254/latest/", "https://0.0.0.0/"),
    *("https://[fe80::1%25eth0]/", "https://[::ffff:169.254.169.254]/", "https://2852039166/"),
    *("https://0xa9fea9fe/", "https://127.1/", "https://faß.de/", "https://a..example/"),
    *("https://-a.example/", f"https://{'a' * 64}.example/"),
]


@in_turn(
    ("field", "value"),
    [
        *(("url", url) for url in REFUSED_URLS),
        ("job_types", ["no type"]),
        ("labels", {"": "x"}),
    ],
)
async def test_a_webhook_that_breaks_a_rule_is_refused(
    call: Caller, field: str, value: Any
) -> None:
    invalid = await refusal(call.CreateWebhook(**{"user_id": "ada", "url": URL} | {field: value}))
    assert invalid.reason == "INVALID_FIELD"
    assert field in invalid.message


@in_turn(
    "url",
    [
        *("http://10.0.0.1/", "https://192.168.0.1:8443/", "http://[fd00::1]/"),
        *("http://[::1]:3000/", "http://localhost:3000/", "http://intern/", "https://8.8.8.8/"),
        *("https://[2606:4700::1]/", "https://xn--fa-hia.de/"),
        "https://A_b-c.example:443/?q=ü",
    ],
)
async def test_what_a_gateway_may_be_permitted_to_post_to_is_accepted(
    call: Caller, url: str
) -> None:
    assert (await call.CreateWebhook(user_id="ada", url=url)).webhook.url == url


@in_turn("count", [101, 70])
async def test_a_state_that_is_too_large_is_refused(call: Caller, count: int) -> None:
    waiting = [pending() for _ in range(count)]
    if count < 100:  # too many bytes
        for each in waiting:
            each.transition.actor = "ü" * 400
    invalid = await refusal(call.SaveWebhook(webhook_id=IdSource().new_id(1), pending=waiting))
    assert "pending" in invalid.message
