"""Work that is done whenever somebody says that there is some."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from jobledger_server.store import StoreError


async def whenever(
    wanted: asyncio.Event, work: Callable[[], Awaitable[bool]], log: logging.Logger, failed: str
) -> None:
    """Work when it is wanted, and as long as there is more to do, until cancelled.

    What fails is not repeated at once: whoever looks regularly will say again that it is wanted.

    Args:
        wanted: Is set where there is something to do.
        work: Does a step; returns whether there is more.
        log: Where a failure is logged.
        failed: The name of that event.
    """
    loop = asyncio.get_running_loop()
    while True:
        await wanted.wait()
        wanted.clear()
        begin = loop.time()
        try:
            more = await work()
        except StoreError as error:
            log.warning(failed, extra={"cause": repr(error), "count": 1})
        except Exception:
            # A bug, but one that must not stop the work.
            log.exception(failed)
        else:
            if more:
                wanted.set()
                # As long as the step took: others have half of the database's time.
                await asyncio.sleep(loop.time() - begin)
