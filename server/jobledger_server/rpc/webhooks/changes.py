"""What every change of a webhook goes through: a turn, and the audit log."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.lists import Lists

Result = TypeVar("Result")

log = logging.getLogger("jobledger.audit")


async def in_turn(lists: Lists, call: Call, change: Callable[[], Awaitable[Result]]) -> Result:
    """Make a change when it is the caller's turn among the lists."""
    async with lists.turn(call.caller):
        return await retry_if_stale(change)


def audit(call: Call, change: str, webhook_id: str) -> None:
    """Write a change to the audit log, if its caller has an identity."""
    if call.caller.identity:
        facts = {"caller": call.caller.identity, "change": change, "webhook": webhook_id}
        log.info("change", extra={**facts, "outcome": "OK"})
