"""Whether the service answers: asked at the start, and for those who ask whether this is ready."""

import asyncio
import logging
import time
from typing import Final

from jobledger.errors import JobledgerError
from jobledger_gateway.upstream import Upstream

KEPT_SECONDS: Final = 1.0
"""How long an answer counts, so that many who ask make one call."""

RETRY_SECONDS: Final = 2.0
"""Between two questions at the start."""

log = logging.getLogger("jobledger.gateway")


class Readiness:
    """Asks the service for its health.

    Args:
        upstream: calls the service.
        target: its address, for the log.
    """

    def __init__(self, upstream: Upstream, target: str) -> None:
        self._upstream = upstream
        self._target = target
        self._asking = asyncio.Lock()
        self._asked = -KEPT_SECONDS
        self._error: JobledgerError | None = None

    async def check(self) -> None:
        """Return if the service serves. Raises JobledgerError."""
        async with self._asking:
            if time.monotonic() >= self._asked + KEPT_SECONDS:
                try:
                    await self._upstream.check_health()
                except JobledgerError as error:
                    self._error = error
                else:
                    self._error = None
                self._asked = time.monotonic()
        if self._error is not None:
            raise self._error.with_traceback(None)

    async def report(self) -> None:
        """Log whether the service answers; if it does not, also when it first does."""
        is_first = True
        while True:
            try:
                await self.check()
            except JobledgerError as error:
                if is_first:
                    log.warning("service_unavailable target=%s failure=%s", self._target, error)
                is_first = False
                await asyncio.sleep(RETRY_SECONDS)
            else:
                log.info("service_answers target=%s", self._target)
                return
