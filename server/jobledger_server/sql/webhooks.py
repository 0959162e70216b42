"""Webhooks in a table of their own. See `webhook_store.Webhooks`."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    and_,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.job import Instant, is_id
from jobledger_server.domain.limits import DEFAULT_WEBHOOKS_EACH, MAX_WEBHOOKS
from jobledger_server.sql.dialect import Dialect
from jobledger_server.sql.store_connections import StoreConnections, runs_to_completion
from jobledger_server.sql.tables import webhook_deliverers, webhooks
from jobledger_server.webhook_store import Claimed, Deliveries, Webhook

_COLUMNS = [webhooks.c[name] for name in Webhook.__struct_fields__]

_ENABLED = webhooks.c.disable_time.is_(None)

# As in the condition of the index.
_NONE: ColumnElement[str] = literal_column("''")

_RECORD_DELIVERER = text(
    "INSERT INTO webhook_deliverers (id, expire_time) VALUES (:id, :expire_time)"
    " ON CONFLICT (id) DO UPDATE SET expire_time = excluded.expire_time"
)

_NO_HOLDER = {"holder": "", "lease_expire_time": 0}


class SqlWebhooks:
    """See `webhook_store.Webhooks`. Each change is one short transaction."""

    def __init__(self, connections: StoreConnections, dialect: Dialect) -> None:
        self._connections = connections
        self._dialect = dialect

    @runs_to_completion
    async def add(self, webhook: Webhook, *, each: int = DEFAULT_WEBHOOKS_EACH) -> Webhook:
        async with self._connections.writing() as connection:
            if webhook.request_id:
                same = and_(
                    webhooks.c.user_id == webhook.user_id,
                    webhooks.c.request_id == webhook.request_id,
                    webhooks.c.request_id != _NONE,
                )
                row = (await connection.execute(select(*_COLUMNS).where(same))).first()
                if row is not None:
                    return _webhook(row)
            count = await connection.scalar(select(func.count()).select_from(webhooks))
            if (count or 0) >= MAX_WEBHOOKS:
                raise LimitExceeded("webhooks", MAX_WEBHOOKS)
            if webhook.user_id:
                count = await connection.scalar(
                    select(func.count()).where(webhooks.c.user_id == webhook.user_id)
                )
                if (count or 0) >= each:
                    raise LimitExceeded("webhooks_per_user", each)
            values = {name: getattr(webhook, name) for name in Webhook.__struct_fields__}
            values["create_time"] = await self._dialect.now(connection)
            await connection.execute(insert(webhooks).values(**values, **_NO_HOLDER))
            return Webhook(**values)

    async def listed(self, *, user_id: str, after: str, limit: int) -> list[Webhook]:
        id_ = webhooks.c.id
        some = select(*_COLUMNS).where(_owned(user_id)).order_by(id_).limit(limit)
        if after:
            some = some.where(id_ > after)
        return [_webhook(row) for row in await self._connections.list_rows(some)]

    async def get(self, webhook_id: str, *, user_id: str) -> Webhook | None:
        if not is_id(webhook_id):
            return None
        one = select(*_COLUMNS).where(webhooks.c.id == webhook_id, _owned(user_id))
        rows = await self._connections.list_rows(one)
        return _webhook(rows[0]) if rows else None

    @runs_to_completion
    async def update(
        self, webhook_id: str, *, user_id: str, change: Callable[[Webhook, Instant], Webhook]
    ) -> Webhook | None:
        if not is_id(webhook_id):
            return None
        one = and_(webhooks.c.id == webhook_id, _owned(user_id))
        async with self._connections.writing() as connection:
            locked = select(*_COLUMNS).where(one).with_for_update()
            row = (await connection.execute(locked)).first()
            if row is None:
                return None
            before = _webhook(row)
            # A later save of a claim is refused.
            now = await self._dialect.now(connection)
            changed = replace(change(before, now), generation=before.generation + 1)
            values = {name: getattr(changed, name) for name in Webhook.__struct_fields__}
            await connection.execute(update(webhooks).where(one).values(**values, **_NO_HOLDER))
            return changed

    @runs_to_completion
    async def remove(self, webhook_id: str, *, user_id: str) -> bool:
        if not is_id(webhook_id):
            return False
        async with self._connections.writing() as connection:
            one = delete(webhooks).where(webhooks.c.id == webhook_id, _owned(user_id))
            return (await connection.execute(one)).rowcount > 0

    @runs_to_completion
    async def enable(self, webhook_id: str, *, user_id: str, creator: str) -> Webhook | None:
        if not is_id(webhook_id):
            return None
        one = and_(webhooks.c.id == webhook_id, _owned(user_id))
        async with self._connections.writing() as connection:
            enabled = update(webhooks).where(one, ~_ENABLED)
            now = await self._dialect.now(connection)
            values = {"disable_time": None, "disable_reason": "", "enable_time": now}
            await connection.execute(enabled.values(**values, creator=creator))
            row = (await connection.execute(select(*_COLUMNS).where(one))).first()
            return None if row is None else _webhook(row)

    async def creators(self) -> Collection[tuple[str, str]]:
        pairs = select(webhooks.c.creator, webhooks.c.user_id).where(_ENABLED).distinct()
        rows = await self._connections.list_rows(pairs)
        return [(row.creator, row.user_id) for row in rows]

    @runs_to_completion
    async def disable(self, creator: str, *, user_id: str, reason: str) -> Sequence[str]:
        table = webhooks.c
        theirs = (table.creator == creator) & (table.user_id == user_id) & _ENABLED
        async with self._connections.writing() as connection:
            locked = select(table.id).where(theirs).order_by(table.id).with_for_update()
            ids = (await connection.scalars(locked)).all()
            now = await self._dialect.now(connection)
            # A later save of a claim is refused.
            ended = {**_NO_HOLDER, "generation": table.generation + 1}
            disabled = update(webhooks).where(table.id.in_(ids)).values(**ended)
            await connection.execute(disabled.values(disable_time=now, disable_reason=reason))
            return ids

    @runs_to_completion
    async def claim(
        self, deliverer_id: str, known: Collection[str], *, lease: int, limit: int
    ) -> Claimed:
        table, held = webhooks.c, webhooks.c.holder == deliverer_id
        is_known = table.id.in_([each for each in known if is_id(each)])
        async with self._connections.writing() as connection:
            now = await self._dialect.now(connection)
            part = await _part(connection, deliverer_id, now, lease)
            kept = held & is_known & _ENABLED & (table.lease_expire_time > now)
            # In the order of the ids, as `disable` does.
            locked = select(table.id).where(kept).order_by(table.id).with_for_update()
            kept_ids = (await connection.scalars(locked)).all()
            await connection.execute(
                update(webhooks).where(kept).values(lease_expire_time=now + lease)
            )
            free = _ENABLED & ((table.lease_expire_time <= now) | (held & ~is_known))
            room = max(0, min(limit, part - len(kept_ids)))
            # Those that another deliverer takes at this moment are its own.
            some = select(table.id).where(free).order_by(table.id).limit(room)
            ids = (await connection.scalars(some.with_for_update(skip_locked=True))).all()
            take = update(webhooks).where(table.id.in_(ids))
            await connection.execute(
                take.values(
                    holder=deliverer_id,
                    lease_expire_time=now + lease,
                    generation=table.generation + 1,
                )
            )
            taken = select(*_COLUMNS).where(table.id.in_(ids)).order_by(table.id)
            rows = (await connection.execute(taken)).all()
            held_ids = sorted({*kept_ids, *ids})
            return Claimed([_webhook(row) for row in rows], held_ids, held_ids[part:])

    @runs_to_completion
    async def leave(self, deliverer_id: str) -> None:
        async with self._connections.writing() as connection:
            table = webhook_deliverers
            await connection.execute(delete(table).where(table.c.id == deliverer_id))

    @runs_to_completion
    async def save(self, webhook_id: str, generation: int, deliveries: Deliveries) -> bool:
        if not is_id(webhook_id):
            return False
        table = webhooks.c
        values: dict[str, Any] = {
            "cursor": deliveries.cursor,
            "pending": deliveries.pending,
            "pending_count": deliveries.pending_count,
            "given_up": deliveries.given_up,
        }
        if deliveries.success_time is not None:
            values["success_time"] = deliveries.success_time
        if deliveries.failure_time is not None:
            values["failure_time"] = deliveries.failure_time
            values["last_failure"] = deliveries.last_failure
        async with self._connections.writing() as connection:
            if deliveries.release or deliveries.disable_reason:
                # A later save of this claim is refused.
                values |= {**_NO_HOLDER, "generation": table.generation + 1}
            if deliveries.disable_reason:
                values["disable_time"] = await self._dialect.now(connection)
                values["disable_reason"] = deliveries.disable_reason
            held = (table.id == webhook_id) & (table.generation == generation) & _ENABLED
            found = await connection.execute(update(webhooks).where(held).values(**values))
            return found.rowcount > 0


async def _part(connection: AsyncConnection, deliverer_id: str, now: int, lease: int) -> int:
    """Count a deliverer among those that have claimed within a lease; return the part of each."""
    table = webhook_deliverers
    # First: claims of one deliverer follow each other, and nobody waits for a row after this.
    await connection.execute(_RECORD_DELIVERER, {"id": deliverer_id, "expire_time": now + lease})
    gone = select(table.c.id).where(table.c.expire_time <= now).with_for_update(skip_locked=True)
    ids = (await connection.scalars(gone)).all()
    await connection.execute(delete(table).where(table.c.id.in_(ids)))
    living = select(func.count()).where(table.c.expire_time > now)
    count = select(func.count()).select_from(webhooks).where(_ENABLED)
    deliverers, enabled = await connection.scalar(living), await connection.scalar(count)
    return -(-(enabled or 0) // (deliverers or 1))


def _owned(user_id: str) -> ColumnElement[bool]:
    return webhooks.c.user_id == user_id if user_id else true()


def _webhook(row: Any) -> Webhook:
    values = dict(zip(Webhook.__struct_fields__, row, strict=True))
    values["rotation_ids"] = tuple(values["rotation_ids"])
    values["create_time"] = Instant(values["create_time"])
    return Webhook(**values)
