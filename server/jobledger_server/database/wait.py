"""Waits for a database that is away while the server starts."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from jobledger_server.database.errors import is_outage
from jobledger_server.store import StoreUnavailable

PAUSE_SECONDS = 0.5
"""Between two attempts. Each may take as long as a connection may."""

log = logging.getLogger("jobledger.database")


async def wait_for_database(ask: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Ask the database until it answers.

    A replica that starts during a failover would else fail, and be restarted later and later.

    Args:
        ask: Raises what the store raises if the database does not answer.
        seconds: How long to wait. After that, what was raised last is raised.

    Raises:
        StoreUnavailable: It did not answer in time; or at once where waiting does not help, such
            as for a wrong password.
        Exception: What else `ask` raises.
    """
    loop = asyncio.get_running_loop()
    until, waits = loop.time() + seconds, False
    while True:
        try:
            await ask()
        except StoreUnavailable as error:
            if error.__cause__ is None or not is_outage(error.__cause__) or loop.time() >= until:
                raise
            if not waits:
                log.warning("waiting_for_database", extra={"cause": str(error), "limit": seconds})
            waits = True
        else:
            if waits:
                log.info("database_answers")
            return
        await asyncio.sleep(PAUSE_SECONDS)
