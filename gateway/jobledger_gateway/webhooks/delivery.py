"""Delivers one webhook: follows the feed, posts, tries again, and stores how far it has come.

What is stored is a resume token, and what before it was not delivered. The token moves on when
everything of its message was delivered, or is pending: whatever ends this process, the next one
repeats at most.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.core.webhook_events import Event, delivered_transitions, event_of
from jobledger.errors import JobledgerError, JobNotFound, WebhookNotHeld
from jobledger.v1.job_pb2 import JOB_VIEW_BASIC, Job, JobTransition
from jobledger.v1.job_service_pb2 import (
    GetJobRequest,
    GetJobResponse,
    WatchJobsRequest,
    WatchJobsResponse,
)
from jobledger.v1.webhook_service_pb2 import ClaimedWebhook, PendingDelivery, SaveWebhookRequest
from jobledger_gateway.settings import WebhookSettings
from jobledger_gateway.upstream import Sign, Upstream
from jobledger_gateway.webhooks.pending import Pending
from jobledger_gateway.webhooks.posting import Answer, Poster

CONCURRENT: Final = 16
"""Attempts of one webhook at once."""

QUIET_SAVE_SECONDS: Final = 30.0
"""Between two times that a token is stored if nothing was to be delivered."""

PAUSE_SECONDS: Final = 5.0
"""Before another try if the service refuses to be watched."""

GONE: Final = 410

LOST: Final = "the service does not know this place in its feed any more: some ends may be missing"

log = logging.getLogger("jobledger.gateway.webhooks")


class _Disabled(Exception):
    """The webhook is not to be delivered any more. Its text says why."""


class Delivery:
    """Delivers one webhook, from what its last deliverer stored.

    Args:
        claimed: the webhook, its secret and its state.
        upstream: calls the service.
        poster: posts.
        settings: how long it waits.
    """

    def __init__(
        self,
        claimed: ClaimedWebhook,
        upstream: Upstream,
        poster: Poster,
        settings: WebhookSettings,
    ) -> None:
        self._webhook = claimed.webhook
        self._secret = claimed.secret
        self._upstream = upstream
        self._poster = poster
        self._settings = settings
        self._pending = Pending(claimed.pending)
        self._retried: set[str] = set()  # the jobs whose first pending delivery is being tried
        self._attempts = asyncio.Semaphore(CONCURRENT)
        self._not_before = 0.0  # the receiver asked to wait, by time.monotonic
        self._failing = ""  # why, since the last success
        self._last_success = _seconds(claimed.webhook.success_time)
        self._state = SaveWebhookRequest(
            webhook_id=claimed.webhook.id, generation=claimed.generation, cursor=claimed.cursor
        )
        self._changed = False  # what is stored is not the state any more
        self._delivered = asyncio.Event()  # and it is worth a call

    async def run(self) -> None:
        """Deliver until it is cancelled, or somebody else holds the webhook, or it is disabled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow())
                tasks.create_task(self._retry())
                tasks.create_task(self._keep_saving())
        except* WebhookNotHeld:
            log.info("webhook_lost webhook=%s", self._webhook.id)
        except* _Disabled as disabled:
            reason = _first_of(disabled)
            log.warning("webhook_disabled webhook=%s reason=%r", self._webhook.id, reason)
            await self._disable(reason)

    async def release(self) -> None:
        """Store the state and let another deliverer go on. Call it after `run` was cancelled."""
        self._state.release = True
        with contextlib.suppress(JobledgerError):
            await self._save()

    # --- the feed ---

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
                    self._failed(LOST)
                elif isinstance(message, WatchJobsResponse):
                    await self._deliver(message)

    async def _deliver(self, message: WatchJobsResponse) -> None:
        """Deliver a message; return once each of its events was delivered or is pending."""
        events: defaultdict[str, list[tuple[Job, JobTransition]]] = defaultdict(list)
        for change in message.changes:
            for transition in delivered_transitions(
                change, all_transitions=self._webhook.all_transitions
            ):
                events[change.job.id].append((change.job, transition))
        async with asyncio.TaskGroup() as tasks:
            for of_job in events.values():
                tasks.create_task(self._deliver_job(of_job))
        if message.resume_token not in ("", self._state.cursor):
            self._state.cursor = message.resume_token
            self._changed = True
        if events:
            self._delivered.set()

    async def _deliver_job(self, events: Sequence[tuple[Job, JobTransition]]) -> None:
        for job, transition in events:
            earlier = self._pending.of_job(job.id)
            if earlier and transition.version <= earlier[-1].transition.version:
                continue  # read again after a restart: it was delivered, or is pending
            answer = None
            first = time.time()
            if not earlier:
                answer = await self._attempt(event_of(job, transition))
                if not answer.failure:
                    continue
            await self._pending.room()
            pending = PendingDelivery(
                transition=transition,
                user_id=job.user_id,
                job_type=job.job_type,
                attempts=0 if answer is None else 1,
                first_time=_timestamp(first),
                next_time=_timestamp(
                    first if answer is None else time.time() + self._backoff(1, answer)
                ),
            )
            self._pending.add(pending)

    # --- attempts ---

    async def _attempt(self, event: Event) -> Answer:
        """Post an event once. Raises _Disabled if the receiver is gone for good."""
        async with self._attempts:
            while (wait := self._not_before - time.monotonic()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait)
            headers = event.headers(self._secret, time.time())
            answer = await self._poster.post(self._webhook.url, headers, event.body)
        if answer.status == GONE:
            raise _Disabled("status 410: the receiver is gone")
        if answer.retry_after is not None:
            wait = min(answer.retry_after, self._settings.max_backoff)
            self._not_before = max(self._not_before, time.monotonic() + wait)
        if answer.failure:
            self._failed(answer.failure)
        else:
            if self._failing:
                log.info("webhook_recovered webhook=%s", self._webhook.id)
                self._failing = ""
            self._last_success = time.time()
            self._state.success_time.CopyFrom(_timestamp(self._last_success))
        self._changed = True
        self._delivered.set()
        return answer

    def _failed(self, failure: str) -> None:
        if failure != self._failing:  # a receiver that is down fails often, and in one way
            log.warning("webhook_fails webhook=%s failure=%r", self._webhook.id, failure)
            self._failing = failure
        self._state.failure_time.CopyFrom(_timestamp(time.time()))
        self._state.last_failure = failure[:500]
        self._changed = True

    def _backoff(self, attempts: int, answer: Answer) -> float:
        """Return how long to wait after that many attempts."""
        settings = self._settings
        doubled = settings.first_backoff * 2.0 ** min(attempts - 1, 30)
        jitter = random.uniform(0.8, 1.2)  # noqa: S311
        pause = min(doubled, settings.max_backoff) * jitter
        return max(pause, min(answer.retry_after or 0.0, settings.max_backoff))

    async def _retry(self) -> None:
        """Try what is pending when its time comes, the first delivery of each job."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._pending.added.clear()
                now = time.time()
                soonest = None
                for delivery in self._pending.firsts():
                    job_id = delivery.transition.job_id
                    if job_id in self._retried:
                        continue
                    wait = _seconds(delivery.next_time) - now
                    if wait <= 0:
                        self._retried.add(job_id)
                        tasks.create_task(self._try_again(delivery))
                    else:
                        soonest = wait if soonest is None else min(soonest, wait)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(soonest):
                        await self._pending.added.wait()

    async def _try_again(self, delivery: PendingDelivery) -> None:
        try:
            try:
                event = await self._event(delivery)
            except JobledgerError as error:  # of the service, whose watch tells of it
                log.debug("webhook_read_failed webhook=%s error=%s", self._webhook.id, error)
                delivery.next_time.CopyFrom(_timestamp(time.time() + PAUSE_SECONDS))
                return
            answer = await self._attempt(event)
            if not answer.failure:
                await self._pending.remove(delivery)
                return
            delivery.attempts += 1
            first = _seconds(delivery.first_time)
            pause = self._backoff(delivery.attempts, answer)
            delivery.next_time.CopyFrom(_timestamp(time.time() + pause))
            if time.time() - first >= self._settings.give_up:
                if self._last_success < first:
                    # Nothing else arrives either: giving up one after the other would lose all.
                    raise _Disabled(f"no delivery has succeeded for too long: {answer.failure}")
                log.warning("webhook_gave_up webhook=%s event=%s", self._webhook.id, event.id)
                self._state.given_up += 1
                await self._pending.remove(delivery)
        finally:
            self._retried.discard(delivery.transition.job_id)
            self._pending.added.set()
            self._delivered.set()
            self._changed = True

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

    # --- the state ---

    async def _keep_saving(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_SAVE_SECONDS):
                    await self._delivered.wait()
            self._delivered.clear()
            await asyncio.sleep(self._settings.save)
            if self._changed:
                await self._try_to_save()

    async def _disable(self, reason: str) -> None:
        """Store that the webhook is disabled."""
        self._state.disable_reason = reason[:500]
        self._changed = True
        with contextlib.suppress(WebhookNotHeld):
            while self._changed:
                await self._try_to_save()
                await asyncio.sleep(self._settings.save)

    async def _try_to_save(self) -> None:
        """Store the state, or leave it to the next time. Raises WebhookNotHeld."""
        try:
            await self._save()
        except WebhookNotHeld:
            raise
        except JobledgerError as error:
            log.warning("webhook_save_failed webhook=%s error=%s", self._webhook.id, error)

    async def _save(self) -> None:
        """Store the state. Raises JobledgerError; WebhookNotHeld ends the delivery."""
        request = SaveWebhookRequest()
        request.CopyFrom(self._state)
        request.pending.extend(self._pending)
        self._changed = False
        try:
            await self._upstream.call("WebhookService.SaveWebhook", request, ())
        except JobledgerError:
            self._changed = True
            raise
        self._state.given_up -= request.given_up


def _first_of(group: BaseExceptionGroup[BaseException]) -> str:
    """Return the text of the first error in a group, which may have groups in it."""
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else str(first)


def _timestamp(seconds: float) -> Timestamp:
    time = Timestamp()
    time.FromMicroseconds(round(seconds * 1_000_000))
    return time


def _seconds(time: Timestamp) -> float:
    return time.ToMicroseconds() / 1_000_000
