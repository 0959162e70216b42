"""Webhooks in the store: subscriptions, leases, and fenced states."""

import asyncio
from collections.abc import Collection
from functools import partial

import pytest
from msgspec.structs import replace
from sqlalchemy import insert, select

from jobledger_server.domain.errors import LimitExceeded, RequestIdReused
from jobledger_server.domain.job import Instant, Micros
from jobledger_server.domain.limits import (
    DEFAULT_WEBHOOKS_EACH,
    MAX_ROTATION_IDS,
    MAX_WEBHOOKS,
)
from jobledger_server.ledger.ids import IdSource
from jobledger_server.sql.database import Database
from jobledger_server.sql.tables import webhooks
from jobledger_server.store import Store, StoreConflict
from jobledger_server.webhook_store import Claimed, Deliveries, Webhook

LEASE = 60_000_000
IDS = IdSource()


def webhook(user_id: str = "ada") -> Webhook:
    return Webhook(
        id=IDS.new_id(1),
        user_id=user_id,
        url="https://example.com/hook",
        job_types=["render"],
        labels={"team": "blue"},
        transitions=[],
        secret="whsec_c2VjcmV0",
        cursor="c0",
    )


async def test_another_user_neither_deletes_nor_enables_a_webhook(store: Store) -> None:
    mine = await store.webhooks.add(webhook())
    for webhook_id, user_id in ((mine.id, "bob"), (IDS.new_id(1), "ada"), ("no id", "")):
        assert not await store.webhooks.remove(webhook_id, user_id=user_id)
        assert await store.webhooks.enable(webhook_id, user_id=user_id, creator="eve") is None
    assert await store.webhooks.remove(mine.id, user_id="ada")
    assert await store.webhooks.listed(user_id="", after="", limit=10) == []


async def test_there_are_as_many_webhooks_as_may_be(store: Store, database: Database) -> None:
    async def copy(added: Webhook, count: int) -> None:
        async with database.writer.begin() as connection:
            one = select(webhooks).where(webhooks.c.id == added.id)
            row = (await connection.execute(one)).mappings().one()
            copies = [{**row, "id": IDS.new_id(1)} for _ in range(count)]
            await connection.execute(insert(webhooks), copies)

    await copy(await store.webhooks.add(webhook()), DEFAULT_WEBHOOKS_EACH - 2)
    await store.webhooks.add(webhook())
    with pytest.raises(LimitExceeded, match="webhooks_per_user"):
        await store.webhooks.add(webhook())
    await store.webhooks.add(webhook(), each=DEFAULT_WEBHOOKS_EACH + 1)
    await copy(await store.webhooks.add(webhook("")), MAX_WEBHOOKS - DEFAULT_WEBHOOKS_EACH - 3)
    await store.webhooks.add(webhook(""))
    with pytest.raises(LimitExceeded, match="'webhooks'"):
        await store.webhooks.add(webhook(""))


async def test_a_request_id_names_one_webhook_of_its_owner(store: Store) -> None:
    async def add(user_id: str, request_id: str) -> Webhook:
        return await store.webhooks.add(replace(webhook(user_id), request_id=request_id))

    first = await add("ada", "r")
    assert await add("ada", "r") == first
    others = [await add("ada", "s"), await add("bob", "r"), await add("ada", "")]
    assert len({first.id, *(each.id for each in others)}) == 4
    assert await store.webhooks.remove(first.id, user_id="ada")
    assert (await add("ada", "r")).id != first.id


async def test_an_id_names_one_webhook(store: Store) -> None:
    first = await store.webhooks.add(webhook())
    with pytest.raises(StoreConflict):
        await store.webhooks.add(replace(webhook("bob"), id=first.id))
    assert await store.webhooks.listed(user_id="", after="", limit=10) == [first]
    # A request id is looked for before.
    named = await store.webhooks.add(replace(webhook(), request_id="r"))
    again = replace(webhook(), id=first.id, request_id="r")
    assert await store.webhooks.add(again) == named


async def test_a_repeated_rotation_changes_nothing_and_an_earlier_one_is_refused(
    store: Store,
) -> None:
    created = await store.webhooks.add(webhook())

    async def rotate(secret: str, request_id: str) -> Webhook | None:
        def change(found: Webhook, now: Instant) -> Webhook:
            return found.rotated(secret, request_id=request_id, keep=Micros(1000), now=now)

        return await store.webhooks.update(created.id, user_id="ada", change=change)

    async def secrets() -> tuple[str, str]:
        found = await store.webhooks.get(created.id, user_id="ada")
        assert found is not None
        return found.secret, found.previous_secret

    for secret, request_id in (("s1", "r1"), ("other", "r1"), ("s2", "r2")):
        await rotate(secret, request_id)
    assert await secrets() == ("s2", "s1")
    for last, now in (("r2", "s2"), ("", "s3"), ("r4", "s4")):
        await rotate(now, last)
        with pytest.raises(RequestIdReused, match="r1"):
            await rotate("other", "r1")
        assert (await secrets())[0] == now
    for number in range(MAX_ROTATION_IDS):
        await rotate(f"n{number}", "")
    await rotate("s5", "r1")
    assert (await secrets())[0] == "s5"


async def test_an_update_is_given_to_a_deliverer_anew_and_keeps_what_was_stored(
    store: Store,
) -> None:
    created = await store.webhooks.add(webhook())
    held = (await claim(store, "a")).taken[0]
    await store.webhooks.save(held.id, held.generation, Deliveries("c1", b"p", 1, given_up=2))
    times: list[Instant] = []

    def change(found: Webhook, now: Instant) -> Webhook:
        times.append(now)
        return replace(found, url="https://example.org/", previous_secret="whsec_b2xk")

    update = partial(store.webhooks.update, change=change)
    for webhook_id, user_id in ((held.id, "bob"), (IDS.new_id(1), "ada"), ("no id", "")):
        assert await update(webhook_id, user_id=user_id) is None
        assert await store.webhooks.get(webhook_id, user_id=user_id) is None
    assert not times
    updated = await update(held.id, user_id="ada")
    assert updated == await store.webhooks.get(held.id, user_id="")
    assert updated is not None
    assert (updated.url, updated.cursor, updated.pending) == ("https://example.org/", "c1", b"p")
    assert (updated.given_up, updated.previous_secret) == (2, "whsec_b2xk")
    assert times[0] >= created.create_time
    assert not await store.webhooks.save(held.id, held.generation, Deliveries("late"))
    again = await claim(store, "a", [held.id])
    assert [each.url for each in again.taken] == ["https://example.org/"]


async def claim(
    store: Store, name: str, known: Collection[str] = (), *, lease: int = LEASE, limit: int = 3
) -> Claimed:
    return await store.webhooks.claim(name, known, lease=lease, limit=limit)


def ids(claimed: Claimed) -> list[str]:
    return [each.id for each in claimed.taken]


async def test_a_webhook_has_one_holder_until_its_lease_expires(store: Store) -> None:
    for _ in range(5):
        await store.webhooks.add(webhook())
    claims = await asyncio.gather(*(claim(store, name) for name in "abcd"))
    taken = [each for claimed in claims for each in ids(claimed)]
    assert len(taken) == len(set(taken))
    mine = ids(claims[0])
    again = await claim(store, "a", mine)
    assert again.held == sorted({*mine, *ids(again)})
    assert (await claim(store, "a", again.held, lease=0)).held == again.held
    for name in "bcd":
        await store.webhooks.leave(name)
    assert set(again.held) <= {*ids(await claim(store, "e", limit=10))}


async def test_claims_of_a_new_deliverer_at_once_all_succeed(store: Store) -> None:
    added = [(await store.webhooks.add(webhook())).id for _ in range(4)]
    for name in ("first", "second", "third"):
        claims = [claim(store, name, added) for _ in range(4)]
        assert len(await asyncio.gather(*claims)) == 4


async def test_a_deliverer_that_comes_later_gets_its_part(store: Store) -> None:
    for _ in range(7):
        await store.webhooks.add(webhook())
    mine = ids(await claim(store, "a", limit=10))
    assert len(mine) == 7
    assert ids(await claim(store, "b")) == []
    kept = await claim(store, "a", mine)
    assert (kept.taken, kept.held, kept.surplus) == ([], sorted(mine), sorted(mine)[4:])
    for webhook_id in kept.surplus:
        assert await store.webhooks.save(webhook_id, 1, Deliveries("c1", release=True))
    others = await claim(store, "a", kept.held[:4])
    assert (others.taken, others.surplus) == ([], [])
    assert ids(await claim(store, "b")) == kept.surplus


async def test_the_others_divide_what_one_that_leaves_has_released(store: Store) -> None:
    for _ in range(4):
        await store.webhooks.add(webhook())
    first, second = await claim(store, "a", limit=2), await claim(store, "b")
    assert (len(first.taken), len(second.taken)) == (2, 2)
    await store.webhooks.leave("a")
    await store.webhooks.leave("a")
    for each in first.taken:
        assert await store.webhooks.save(each.id, each.generation, Deliveries("c1", release=True))
    assert ids(await claim(store, "b", second.held)) == ids(first)


async def test_a_deliverer_without_a_claim_counts_until_its_lease_expires(store: Store) -> None:
    for _ in range(4):
        await store.webhooks.add(webhook())
    assert len(ids(await claim(store, "a", lease=0, limit=4))) == 4
    assert len(ids(await claim(store, "b", limit=4))) == 4


async def test_a_deliverer_gets_again_what_a_lost_answer_gave_it(store: Store) -> None:
    await store.webhooks.add(webhook())
    lost = await claim(store, "a")
    again = await claim(store, "a")
    assert ids(again) == ids(lost) == again.held
    assert again.taken[0].generation == lost.taken[0].generation + 1


async def test_only_the_last_claim_stores_a_state(store: Store) -> None:
    created = await store.webhooks.add(webhook())
    first = (await claim(store, "a", lease=0)).taken[0]
    second = (await claim(store, "b")).taken[0]
    save = store.webhooks.save
    state = Deliveries("c2", b"x", 1, failure_time=7, last_failure="503", given_up=2)
    assert await save(created.id, second.generation, state)
    assert not await save(created.id, first.generation, Deliveries("c1"))
    for _ in range(2):  # a call whose answer was lost is repeated, and counts nothing twice
        state = Deliveries("c3", success_time=9, given_up=3)
        assert await save(created.id, second.generation, state)
    (stored,) = await store.webhooks.listed(user_id="", after="", limit=10)
    assert stored == replace(
        created,
        cursor="c3",
        generation=2,
        success_time=9,
        failure_time=7,
        last_failure="503",
        given_up=3,
    )


async def test_a_disabled_webhook_is_held_again_once_it_is_enabled(store: Store) -> None:
    await store.webhooks.add(webhook())
    held = (await claim(store, "a")).taken[0]
    state = Deliveries("c1", b"p", 1, disable_reason="410 Gone")
    assert await store.webhooks.save(held.id, held.generation, state)
    assert (await claim(store, "a")).held == []
    (stored,) = await store.webhooks.listed(user_id="", after="", limit=10)
    assert stored.disable_reason == "410 Gone"
    assert stored.disable_time is not None
    enabled = await store.webhooks.enable(held.id, user_id="", creator="token:eve")
    assert enabled is not None
    assert (enabled.disable_time, enabled.creator) == (None, "token:eve")
    assert (enabled.enable_time or 0) >= stored.disable_time
    assert await store.webhooks.enable(held.id, user_id="", creator="token:bob") == enabled
    (taken,) = (await claim(store, "a")).taken
    assert (taken.cursor, taken.pending) == ("c1", b"p")


async def test_the_webhooks_of_a_creator_are_disabled_for_one_user(store: Store) -> None:
    async def add(user_id: str, creator: str) -> Webhook:
        return await store.webhooks.add(replace(webhook(user_id), creator=creator))

    for _ in range(2):
        kept = [await add("ada", "token:bob"), await add("bob", "token:ada")]
    ended = [await add("ada", "token:ada"), await add("ada", "token:ada")]
    pairs = [("ada", "token:bob"), ("bob", "token:ada"), ("ada", "token:ada")]
    assert sorted(await store.webhooks.creators()) == sorted((by, user) for user, by in pairs)
    held = await claim(store, "a", limit=10)
    disable = partial(store.webhooks.disable, "token:ada", user_id="ada", reason="gone")
    assert list(await disable()) == [each.id for each in ended]
    assert list(await disable()) == []
    assert ("token:ada", "ada") not in await store.webhooks.creators()
    again = await claim(store, "a", held.held)
    assert len(again.held) == 4
    assert not {each.id for each in ended} & set(again.held)
    assert not await store.webhooks.save(ended[0].id, 1, Deliveries("late"))
    listed = await store.webhooks.listed(user_id="ada", after=kept[0].id, limit=10)
    assert [each.disable_reason for each in listed] == ["gone", "gone"]
    assert all(each.disable_time for each in listed)
