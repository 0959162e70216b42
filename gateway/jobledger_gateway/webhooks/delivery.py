"""Delivers one webhook: follows the feed, and hands on what is to be delivered.

The token that is stored moves on when everything of its message was delivered, or is pending.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from jobledger.core.webhook_events import delivered_transitions
from jobledger.errors import JobledgerError, WebhookNotHeld
from jobledger.internal.v1alpha1.webhook_delivery_service_pb2 import ClaimedWebhook
from jobledger.v1.job_pb2 import Job, JobTransition
from jobledger.v1.job_service_pb2 import WatchJobsRequest, WatchJobsResponse
from jobledger_gateway.metrics import FIGURES
from jobledger_gateway.settings import WebhookSettings
from jobledger_gateway.upstream import Sign, Upstream
from jobledger_gateway.webhooks.attempts import Attempts, Disabled
from jobledger_gateway.webhooks.posting import Poster
from jobledger_gateway.webhooks.state import State
from jobledger_gateway.webhooks.turns import Turns
from jobledger_gateway.webhooks.under_way import UnderWay

PAUSE_SECONDS: Final = 5.0
"""Before another try if the service refuses to be watched."""

LOST: Final = "the service does not know this place in its feed any more: some ends may be missing"

log = logging.getLogger("jobledger.gateway.webhooks")


class Delivery:
    """Delivers one webhook, from what its last deliverer stored.

    Args:
        claimed: the webhook, its secret and its state.
        upstream: calls the service.
        poster: posts.
        settings: how long it waits.
        owners: the turns of all owners' attempts.
    """

    def __init__(
        self,
        claimed: ClaimedWebhook,
        upstream: Upstream,
        poster: Poster,
        settings: WebhookSettings,
        *,
        owners: Turns,
    ) -> None:
        self._webhook = claimed.webhook
        self._upstream = upstream
        self._state = State(claimed, upstream, settings.save)
        self._attempts = Attempts(claimed, self._state, upstream, poster, settings, owners=owners)
        self._ending = False
        self._messages = UnderWay()

    async def run(self) -> None:
        """Deliver until it is cancelled, or somebody else holds the webhook, or it is disabled.

        An unexpected error ends it too and is logged, so that other webhooks are still delivered.
        Nobody holds this one then, so the next claim begins it again.
        """
        try:
            with FIGURES.holding(self._webhook.id, self._state.pending.first_times):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._follow())
                    tasks.create_task(self._attempts.keep_trying())
                    tasks.create_task(self._state.keep_saving())
        except* WebhookNotHeld:
            log.info("webhook_lost webhook=%s", self._webhook.id)
        except* Disabled as disabled:
            await self._state.disable(_first_of(disabled))
        except* Exception:
            log.exception("webhook_crashed webhook=%s", self._webhook.id)

    async def end(self) -> None:
        """Begin nothing any more, and return once all that is under way has ended."""
        self._ending = True
        await self._attempts.end()
        # A message with an event that there is no room for does not end: it is read again.
        if not self._state.pending.awaiting_room:
            await self._messages.none()

    async def release(self) -> None:
        """Store the state and let another deliverer go on. Call it after `run` was cancelled."""
        await self._state.release()

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_feed()
            except JobledgerError as error:
                log.warning("webhook_watch_refused webhook=%s error=%s", self._webhook.id, error)
                await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311

    async def _follow_feed(self) -> None:
        request = WatchJobsRequest(
            user_id=self._webhook.user_id,
            job_types=self._webhook.job_types,
            labels=self._webhook.labels,
            resume_token=self._state.cursor,
        )
        messages = self._upstream.watch_jobs(request, {"connect_timeout": None})
        async with messages:
            async for message in messages:
                if message is Sign.RESET:
                    self._state.failed(LOST)
                elif isinstance(message, WatchJobsResponse):
                    with self._messages.one():
                        await self._deliver(message)
                if self._ending:
                    await asyncio.Event().wait()

    async def _deliver(self, message: WatchJobsResponse) -> None:
        """Deliver a message; return once each of its events was delivered or is pending."""
        events: defaultdict[str, list[tuple[Job, JobTransition]]] = defaultdict(list)
        for change in message.changes.changes:
            for transition in delivered_transitions(change, self._webhook.transitions):
                events[change.job.id].append((change.job, transition))
        async with asyncio.TaskGroup() as tasks:
            for of_job in events.values():
                tasks.create_task(self._deliver_job(of_job))
        self._state.move_to(message.resume_token)
        if events:
            self._state.delivered_some()

    async def _deliver_job(self, events: Sequence[tuple[Job, JobTransition]]) -> None:
        for job, transition in events:
            await self._attempts.deliver(job, transition)


def _first_of(group: BaseExceptionGroup[BaseException]) -> str:
    """Return the text of the first error in a group, which may have groups in it."""
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else str(first)
