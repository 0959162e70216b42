"""The attempts to deliver: posts, waits as long as the receiver asks, and tries again."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence
from typing import Final

from jobledger.core.retry import wait_at_most
from jobledger.core.webhook_events import Event, event_of
from jobledger.errors import JobledgerError, JobNotFound
from jobledger.internal.v1alpha1.webhook_delivery_service_pb2 import ClaimedWebhook, PendingDelivery
from jobledger.v1.job_pb2 import JOB_VIEW_BASIC, Job, JobTransition
from jobledger.v1.job_service_pb2 import GetJobRequest, GetJobResponse
from jobledger_gateway.metrics import FIGURES
from jobledger_gateway.settings import WebhookSettings
from jobledger_gateway.upstream import Upstream
from jobledger_gateway.webhooks.posting import Answer, Poster
from jobledger_gateway.webhooks.state import State, seconds_of, timestamp
from jobledger_gateway.webhooks.turns import Turns
from jobledger_gateway.webhooks.under_way import UnderWay

CONCURRENT: Final = 16
"""Attempts of one webhook at once."""

READ_PAUSE_SECONDS: Final = 5.0
"""Before another try if the job cannot be read."""

GONE: Final = 410

log = logging.getLogger("jobledger.gateway.webhooks")


class Disabled(Exception):
    """The webhook is not to be delivered any more. Its text says why."""


class Stopping(Exception):
    """No attempt is begun any more."""


class Attempts:
    """Posts the events of one webhook.

    Args:
        claimed: the webhook and its secret.
        state: what is known of its deliveries.
        upstream: calls the service.
        poster: posts.
        settings: how long it waits.
        owners: the turns of all owners' attempts.
    """

    def __init__(
        self,
        claimed: ClaimedWebhook,
        state: State,
        upstream: Upstream,
        poster: Poster,
        settings: WebhookSettings,
        *,
        owners: Turns,
    ) -> None:
        self._webhook = claimed.webhook
        self._secret = claimed.secret
        self._previous = claimed.previous_secret
        self._state = state
        self._upstream = upstream
        self._poster = poster
        self._settings = settings
        self._retried: set[str] = set()  # the jobs whose first pending delivery is being tried
        self._own = asyncio.Semaphore(CONCURRENT)
        self._owners = owners
        self._not_before = 0.0  # the receiver asked to wait, by time.monotonic
        self._stopping = asyncio.Event()
        self._under_way = UnderWay()

    async def deliver(self, job: Job, transition: JobTransition) -> None:
        """Deliver a transition, or leave it pending: after its first try, or behind earlier ones.

        If there is no room for it, this waits: it is not under way then, and is read again.

        Raises Disabled.
        """
        with self._under_way.one():
            delivery = await self._tried(job, transition)
            if delivery is None:
                return
            if self._state.pending.has_room():
                self._state.pending.add(delivery)
                return
        await self._state.pending.room()
        self._state.pending.add(delivery)

    async def end(self) -> None:
        """Begin no attempt any more, and return once those under way have ended."""
        self._stopping.set()
        await self._under_way.none()

    async def _tried(self, job: Job, transition: JobTransition) -> PendingDelivery | None:
        """Try once if nothing earlier of the job is pending; return what is left to deliver."""
        earlier = self._state.pending.of_job(job.id)
        if earlier and transition.version <= earlier[-1].transition.version:
            return None  # read again after a restart: it was delivered, or is pending
        first = next_time = time.time()
        attempts = 0
        if not earlier:
            with contextlib.suppress(Stopping):
                answer = await self._attempt(event_of(job, transition))
                if not answer.failure:
                    return None
                attempts, next_time = 1, time.time() + self._backoff(1, answer)
        return PendingDelivery(
            transition=transition,
            user_id=job.user_id,
            job_type=job.job_type,
            attempts=attempts,
            first_time=timestamp(first),
            next_time=timestamp(next_time),
        )

    async def keep_trying(self) -> None:
        """Try what is pending when its time comes, the first of each job, until cancelled.

        Raises an ExceptionGroup of Disabled.
        """
        pending = self._state.pending
        async with asyncio.TaskGroup() as tasks:
            while not self._stopping.is_set():
                pending.added.clear()
                now = time.time()
                soonest = None
                for delivery in pending.firsts():
                    job_id = delivery.transition.job_id
                    if job_id in self._retried:
                        continue
                    wait = seconds_of(delivery.next_time) - now
                    if wait <= 0:
                        self._retried.add(job_id)
                        tasks.create_task(self._tried_again(delivery))
                    else:
                        soonest = wait if soonest is None else min(soonest, wait)
                await wait_at_most(soonest, pending.added)
            await asyncio.Event().wait()

    async def _tried_again(self, delivery: PendingDelivery) -> None:
        with self._under_way.one(), contextlib.suppress(Stopping):
            await self._try_again(delivery)

    async def _try_again(self, delivery: PendingDelivery) -> None:
        pending = self._state.pending
        try:
            try:
                event = await self._event(delivery)
            except JobledgerError as error:  # of the service, whose watch tells of it
                log.debug("webhook_read_failed webhook=%s error=%s", self._webhook.id, error)
                delivery.next_time.CopyFrom(timestamp(time.time() + READ_PAUSE_SECONDS))
                return
            if not delivery.attempts:
                delivery.first_time.CopyFrom(timestamp(time.time()))
            answer = await self._attempt(event)
            if not answer.failure:
                await pending.remove(delivery)
                return
            delivery.attempts += 1
            first = seconds_of(delivery.first_time)
            pause = self._backoff(delivery.attempts, answer)
            delivery.next_time.CopyFrom(timestamp(time.time() + pause))
            if time.time() - first >= self._settings.give_up:
                if self._state.last_success < first:
                    # Nothing else arrives either: giving up one after the other would lose all.
                    raise Disabled(f"no delivery has succeeded for too long: {answer.failure}")
                log.warning("webhook_gave_up webhook=%s event=%s", self._webhook.id, event.id)
                self._state.gave_up()
                await pending.remove(delivery)
        finally:
            self._retried.discard(delivery.transition.job_id)
            pending.added.set()
            self._state.save_soon()

    async def _attempt(self, event: Event) -> Answer:
        """Post an event once. Raises Stopping, and Disabled if the receiver is gone for good."""
        async with self._own:
            while not self._stopping.is_set():
                wait = self._not_before - time.monotonic()
                if wait <= 0:
                    break
                await wait_at_most(wait, self._stopping)
            else:
                raise Stopping
            async with self._owners.turn(self._webhook.user_id):
                headers = event.headers(self._secrets(), time.time())
                answer = await self._poster.post(self._webhook.url, headers, event.body)
        FIGURES.deliveries["failed" if answer.failure else "delivered"] += 1
        if answer.status == GONE:
            raise Disabled("status 410: the receiver is gone")
        if answer.retry_after is not None:
            wait = min(answer.retry_after, self._settings.max_backoff)
            self._not_before = max(self._not_before, time.monotonic() + wait)
        if answer.failure:
            self._state.failed(answer.failure)
        else:
            self._state.succeeded()
        return answer

    def _secrets(self) -> Sequence[str]:
        """Return what to sign with: for a while also the secret that was rotated away."""
        until = seconds_of(self._webhook.previous_secret_expire_time)
        return [self._secret, self._previous] if time.time() < until else [self._secret]

    def _backoff(self, attempts: int, answer: Answer) -> float:
        """Return how long to wait after that many attempts."""
        settings = self._settings
        doubled = settings.first_backoff * 2.0 ** min(attempts - 1, 30)
        jitter = random.uniform(0.8, 1.0)  # noqa: S311
        pause = min(doubled, settings.max_backoff) * jitter
        return max(pause, min(answer.retry_after or 0.0, settings.max_backoff))

    async def _event(self, delivery: PendingDelivery) -> Event:
        """Read the job of a pending delivery, or what is known of it if it was deleted."""
        transition = delivery.transition
        request = GetJobRequest(
            job_id=transition.job_id, user_id=delivery.user_id, view=JOB_VIEW_BASIC
        )
        try:
            answer = await self._upstream.call("JobService.GetJob", request, ())
            assert isinstance(answer, GetJobResponse)  # noqa: S101
        except JobNotFound:
            job = Job(
                id=transition.job_id,
                user_id=delivery.user_id,
                job_type=delivery.job_type,
                status=transition.to_status,
                version=transition.version,
            )
        else:
            job = answer.job
        return event_of(job, transition)
