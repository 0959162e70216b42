"""Webhooks. See `webhook_store.Webhooks`."""

from collections.abc import Callable, Collection, Sequence

from msgspec.structs import replace

from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.job import Instant
from jobledger_server.domain.limits import DEFAULT_WEBHOOKS_EACH, MAX_WEBHOOKS
from jobledger_server.store import StoreConflict
from jobledger_server.webhook_store import Claimed, Deliveries, Webhook
from jobledger_world.memory.link import Database
from jobledger_world.memory.tables import HeldWebhook


class MemoryWebhooks:
    """See `webhook_store.Webhooks`."""

    def __init__(self, database: Database) -> None:
        self._database, self._rows = database, database.tables.webhooks

    async def add(self, webhook: Webhook, *, each: int = DEFAULT_WEBHOOKS_EACH) -> Webhook:
        def write() -> Webhook:
            for row in self._rows.values():
                known = (row.webhook.user_id, row.webhook.request_id)
                if webhook.request_id and known == (webhook.user_id, webhook.request_id):
                    return row.webhook
            if len(self._rows) >= MAX_WEBHOOKS:
                raise LimitExceeded("webhooks", MAX_WEBHOOKS)
            own = sum(row.webhook.user_id == webhook.user_id for row in self._rows.values())
            if webhook.user_id and own >= each:
                raise LimitExceeded("webhooks_per_user", each)
            if webhook.id in self._rows:
                raise StoreConflict(f"there is a webhook {webhook.id}")
            created = replace(webhook, create_time=self._database.clock())
            self._rows[webhook.id] = HeldWebhook(created)
            return created

        return await self._database.write(write, lock=False)

    async def listed(self, *, user_id: str, after: str, limit: int) -> list[Webhook]:
        def read() -> list[Webhook]:
            ids = sorted(each for each in self._rows if each > after and self._owns(user_id, each))
            return [self._rows[each].webhook for each in ids[:limit]]

        return await self._database.read(read)

    def _owns(self, user_id: str, webhook_id: str) -> bool:
        row = self._rows.get(webhook_id)
        return row is not None and user_id in ("", row.webhook.user_id)

    async def get(self, webhook_id: str, *, user_id: str) -> Webhook | None:
        def read() -> Webhook | None:
            return self._rows[webhook_id].webhook if self._owns(user_id, webhook_id) else None

        return await self._database.read(read)

    async def update(
        self, webhook_id: str, *, user_id: str, change: Callable[[Webhook, Instant], Webhook]
    ) -> Webhook | None:
        def write() -> Webhook | None:
            if not self._owns(user_id, webhook_id):
                return None
            row = self._rows[webhook_id]
            generation = row.webhook.generation + 1
            changed = change(row.webhook, self._database.clock())
            row.webhook = replace(changed, generation=generation)
            row.holder, row.lease_expire_time = "", 0
            return row.webhook

        return await self._database.write(write, lock=False)

    async def remove(self, webhook_id: str, *, user_id: str) -> bool:
        def write() -> bool:
            owns = self._owns(user_id, webhook_id)
            if owns:
                del self._rows[webhook_id]
            return owns

        return await self._database.write(write, lock=False)

    async def enable(self, webhook_id: str, *, user_id: str, creator: str) -> Webhook | None:
        def write() -> Webhook | None:
            if not self._owns(user_id, webhook_id):
                return None
            row = self._rows[webhook_id]
            if row.webhook.disable_time is not None:
                now = self._database.clock()
                enabled = replace(row.webhook, disable_time=None, disable_reason="")
                row.webhook = replace(enabled, enable_time=now, creator=creator)
            return row.webhook

        return await self._database.write(write, lock=False)

    def _enabled(self) -> list[HeldWebhook]:
        return [row for row in self._rows.values() if row.webhook.disable_time is None]

    async def creators(self) -> Collection[tuple[str, str]]:
        def read() -> Collection[tuple[str, str]]:
            return {(row.webhook.creator, row.webhook.user_id) for row in self._enabled()}

        return await self._database.read(read)

    async def disable(self, creator: str, *, user_id: str, reason: str) -> Sequence[str]:
        def write() -> Sequence[str]:
            disabled = []
            for row in self._enabled():
                if (row.webhook.creator, row.webhook.user_id) == (creator, user_id):
                    generation = row.webhook.generation + 1
                    ended = replace(row.webhook, generation=generation, disable_reason=reason)
                    row.webhook = replace(ended, disable_time=self._database.clock())
                    row.holder, row.lease_expire_time = "", 0
                    disabled.append(row.webhook.id)
            return sorted(disabled)

        return await self._database.write(write, lock=False)

    async def claim(
        self, deliverer_id: str, known: Collection[str], *, lease: int, limit: int
    ) -> Claimed:
        def write() -> Claimed:
            now = self._database.clock()
            part = self._part(deliverer_id, now, lease)
            taken: list[Webhook] = []
            held: list[str] = []
            free: list[HeldWebhook] = []
            for webhook_id, row in sorted(self._rows.items()):
                if row.webhook.disable_time is not None:
                    continue
                own, expired = row.holder == deliverer_id, row.lease_expire_time <= now
                if own and webhook_id in known and not expired:
                    row.lease_expire_time = now + lease
                    held.append(webhook_id)
                elif expired or own:
                    free.append(row)
            for row in free[: max(0, min(limit, part - len(held)))]:
                row.holder, row.lease_expire_time = deliverer_id, now + lease
                generation = row.webhook.generation + 1
                row.webhook = replace(row.webhook, generation=generation)
                taken.append(row.webhook)
            held = sorted([*held, *(each.id for each in taken)])
            return Claimed(taken, held, held[part:])

        return await self._database.write(write, lock=False)

    def _part(self, deliverer_id: str, now: int, lease: int) -> int:
        living = self._database.tables.webhook_deliverers
        for gone in [each for each, expire_time in living.items() if expire_time <= now]:
            del living[gone]
        living[deliverer_id] = now + lease
        return -(-len(self._enabled()) // len(living))

    async def leave(self, deliverer_id: str) -> None:
        def write() -> None:
            self._database.tables.webhook_deliverers.pop(deliverer_id, None)

        await self._database.write(write, lock=False)

    async def save(self, webhook_id: str, generation: int, deliveries: Deliveries) -> bool:
        def write() -> bool:
            row = self._rows.get(webhook_id)
            if row is None or row.webhook.generation != generation or row.webhook.disable_time:
                return False
            row.webhook = self._after(row.webhook, deliveries)
            if row.webhook.generation != generation:
                row.holder, row.lease_expire_time = "", 0
            return True

        return await self._database.write(write, lock=False)

    def _after(self, webhook: Webhook, deliveries: Deliveries) -> Webhook:
        saved = replace(
            webhook,
            cursor=deliveries.cursor,
            pending=deliveries.pending,
            pending_count=deliveries.pending_count,
            given_up=deliveries.given_up,
        )
        if deliveries.success_time is not None:
            saved = replace(saved, success_time=deliveries.success_time)
        if deliveries.failure_time is not None:
            failed = {"failure_time": deliveries.failure_time}
            saved = replace(saved, **failed, last_failure=deliveries.last_failure)
        if deliveries.release or deliveries.disable_reason:
            # A later save of this claim is refused.
            saved = replace(saved, generation=webhook.generation + 1)
        if deliveries.disable_reason:
            time = self._database.clock()
            saved = replace(saved, disable_time=time, disable_reason=deliveries.disable_reason)
        return saved
