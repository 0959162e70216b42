"""Stands in for a worker's session with the service, where a test runs a JobRun."""

import asyncio
from typing import Any

from jobledger import Asset, Outcome
from jobledger.testing.handler_run import RecordedOutput


class RecordedUpdates:
    """Keeps the outcome of a job."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.output = RecordedOutput()

    def report(
        self, progress: int | None, message: str | None, checkpoint: dict[str, Any] | None
    ) -> None:
        pass

    async def ask(self) -> None:
        pass

    async def deliver(self) -> bool:
        return True

    async def link_asset(self, asset: Asset) -> Asset:
        return asset

    async def renew_lease(self) -> None:
        await asyncio.Event().wait()

    async def send_outcome(self, outcome: Outcome) -> None:
        self.outcome = outcome
