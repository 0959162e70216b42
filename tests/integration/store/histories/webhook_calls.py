"""Calls about webhooks that chance decides: of owners, of the access file, and of deliverers."""

import random as chance
import uuid
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TypeAlias

from msgspec.structs import replace

from jobledger_server.domain.job import Instant, Micros
from jobledger_server.store import Store, StoreConflict
from jobledger_server.webhook_store import Deliveries, Webhook
from tests.integration.store.histories.commands import OWNERS, SECOND, TYPES

IDS = [str(uuid.UUID(int=7 << 76 | 0b10 << 62 | number)) for number in range(7)]
"""Of all webhooks. There are so few that most calls are about one that exists."""

HOLDERS = ("", *OWNERS)
"""Whose jobs a webhook is of. An empty name stands for all."""

CREATORS = ("", "x", "y")
DELIVERERS = ("d1", "d2", "d3")
EACH = 3

WebhookCall: TypeAlias = "partial[Awaitable[object]]"
"""Called with a store."""


def some_webhook_calls(random: chance.Random) -> Sequence[WebhookCall]:
    """Return a few calls."""
    kinds = {
        _creation: 5,
        _claim: 8,
        _save: 6,
        _update: 2,
        _rotation: 2,
        _removal: 1,
        _enabling: 2,
        _disabling: 1,
        _leaving: 1,
    }
    chosen = random.choices(list(kinds), list(kinds.values()), k=random.randint(2, 8))
    return [kind(random) for kind in chosen]


def _creation(random: chance.Random) -> WebhookCall:
    webhook = Webhook(
        id=random.choice(IDS),
        user_id=random.choice(HOLDERS),
        url=f"https://{random.choice('ab')}.example/ü",
        job_types=random.choice(((), TYPES[:1])),
        labels=random.choice(({}, {"n": "1", "ü": "🎬"})),
        transitions=random.choice(((), ("FAILED",), ("PROCESSING", "FAILED"))),
        secret=f"s{random.randrange(9)}",
        cursor="c0",
        creator=random.choice(CREATORS),
        request_id=random.choice(("", "", "w1", "w2")),
    )
    return partial(create, webhook)


async def create(webhook: Webhook, store: Store) -> object:
    try:
        return await store.webhooks.add(webhook, each=EACH)
    except StoreConflict:
        return "there is one with this id"  # each database says it in other words


def _owned(random: chance.Random) -> tuple[str, str]:
    return random.choice(IDS), random.choice(("", "", *OWNERS))


def _update(random: chance.Random) -> WebhookCall:
    creator, number = random.choice(CREATORS), random.randrange(9)
    return partial(change_url, *_owned(random), f"https://{number}.example", creator)


async def change_url(webhook_id: str, user_id: str, url: str, creator: str, store: Store) -> object:
    def change(webhook: Webhook, _: Instant) -> Webhook:
        return replace(webhook, url=url, creator=creator, cursor=f"{webhook.cursor}, moved")

    return await store.webhooks.update(webhook_id, user_id=user_id, change=change)


def _rotation(random: chance.Random) -> WebhookCall:
    request_id = random.choice(("", "r1", "r2", "r3"))
    return partial(rotate, *_owned(random), f"n{random.randrange(9)}", request_id)


async def rotate(
    webhook_id: str, user_id: str, secret: str, request_id: str, store: Store
) -> object:
    def change(webhook: Webhook, now: Instant) -> Webhook:
        return webhook.rotated(secret, request_id=request_id, keep=Micros(100 * SECOND), now=now)

    return await store.webhooks.update(webhook_id, user_id=user_id, change=change)


def _removal(random: chance.Random) -> WebhookCall:
    return partial(remove, *_owned(random))


async def remove(webhook_id: str, user_id: str, store: Store) -> object:
    return await store.webhooks.remove(webhook_id, user_id=user_id)


def _enabling(random: chance.Random) -> WebhookCall:
    return partial(enable, *_owned(random), random.choice(CREATORS))


async def enable(webhook_id: str, user_id: str, creator: str, store: Store) -> object:
    return await store.webhooks.enable(webhook_id, user_id=user_id, creator=creator)


def _disabling(random: chance.Random) -> WebhookCall:
    return partial(disable, random.choice(CREATORS), random.choice(HOLDERS))


async def disable(creator: str, user_id: str, store: Store) -> object:
    """Disable as a reload of the access file does."""
    pairs = sorted(await store.webhooks.creators())
    return pairs, await store.webhooks.disable(creator, user_id=user_id, reason="not permitted")


def _claim(random: chance.Random) -> WebhookCall:
    known = random.choice((IDS, IDS, random.sample(IDS, 4), []))
    lease, limit = random.choice((1, 100)) * SECOND, random.choice((1, 9, 9))
    return partial(claim, random.choice(DELIVERERS), known, lease, limit)


async def claim(
    deliverer_id: str, known: Sequence[str], lease: int, limit: int, store: Store
) -> object:
    return await store.webhooks.claim(deliverer_id, known, lease=lease, limit=limit)


def _leaving(random: chance.Random) -> WebhookCall:
    return partial(leave, random.choice(DELIVERERS))


async def leave(deliverer_id: str, store: Store) -> object:
    await store.webhooks.leave(deliverer_id)
    return None


def _save(random: chance.Random) -> WebhookCall:
    time = Instant(random.randrange(10**6) * SECOND)
    pending = random.randrange(3)
    deliveries = Deliveries(
        cursor=f"c{random.randrange(99)}",
        pending=b"p" * pending,
        pending_count=pending,
        success_time=random.choice((None, time)),
        failure_time=random.choice((None, time)),
        last_failure=random.choice(("", "502")),
        given_up=random.choice((0, 0, 1)),
        disable_reason=random.choice(("", "", "", "410")),
        release=random.random() < 0.2,
    )
    return partial(save, random.choice(IDS), random.choice((0, 0, 0, 1)), deliveries)


async def save(webhook_id: str, behind: int, deliveries: Deliveries, store: Store) -> object:
    """Save as the holder does, or as one whose claim has ended since."""
    webhook = await store.webhooks.get(webhook_id, user_id="")
    generation = 1 if webhook is None else webhook.generation - behind
    return await store.webhooks.save(webhook_id, generation, deliveries)
