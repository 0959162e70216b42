"""A watch of many jobs: which messages the caller gets, and where to resume. Pure.

The service promises that a stream with a resume token repeats nothing and skips nothing, so the
token of the last message is all that has to be kept.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobledger.core.models import Asset, FeedEvent, Job, JobStatus, JobView, Transition
from jobledger.core.reconnecting import EventT, Pause, Reconnecting, Why
from jobledger.errors import InvalidToken, JobledgerError, ResumeTokenExpired
from jobledger.v1.job_service_pb2 import JobChange, WatchJobsRequest, WatchJobsResponse


class Feed(Reconnecting[WatchJobsRequest, WatchJobsResponse, EventT]):
    """Resumes after the last token that was seen; never ends by itself.

    Args:
        relist: whether to list the jobs again if the service refuses the token. Otherwise the
            refusal is raised.
    """

    def __init__(self, request: WatchJobsRequest, *, relist: bool, **limits: Any) -> None:
        super().__init__(**limits)
        self._request = request
        self._token = request.resume_token
        self._relist = relist
        self._listing = not self._token

    def request(self) -> WatchJobsRequest:
        request = WatchJobsRequest()
        request.CopyFrom(self._request)
        request.resume_token = self._token
        return request

    def name(self) -> str:
        return "the jobs"

    def is_gap(self, failure: JobledgerError) -> bool:
        """Whether the service refused the token: it is too old, or of another database."""
        refused = isinstance(failure, ResumeTokenExpired | InvalidToken)
        return self._relist and refused and bool(self._token)

    def broken(self, failure: JobledgerError) -> Pause:
        pause = super().broken(failure)
        if pause.why is Why.GAP:
            self._list_again()
        return pause

    def _list_again(self) -> None:
        self._token = ""
        self._listing = True

    def _record(self, response: WatchJobsResponse) -> None:
        self.received(progress=response.WhichOneof("content") in ("changes", "heartbeat"))
        self._token = response.resume_token or self._token


class FeedWatch(Feed[FeedEvent]):
    """Yields every change.

    Args:
        heartbeats: whether a message without news makes a heartbeat.
    """

    def __init__(
        self, request: WatchJobsRequest, *, relist: bool, heartbeats: bool, **limits: Any
    ) -> None:
        super().__init__(request, relist=relist, **limits)
        self._is_full = JobView.from_proto(request.view) is JobView.FULL
        self._heartbeats = heartbeats
        self._synced = False

    def accept(self, response: WatchJobsResponse) -> Sequence[FeedEvent]:
        before = self._token
        self._record(response)
        events = [self._event(change, before) for change in response.changes.changes]
        # Each stream sends `synced`. The caller gets the first one, which ends the listing or the
        # changes that were missed.
        first = response.synced and not self._synced
        self._synced = self._synced or response.synced
        self._listing = self._listing and not response.synced
        if first or (self._heartbeats and not events):
            events.append(FeedEvent(job=None, synced=first, heartbeat=not first))
        if events:
            # Only now the caller has everything up to the token.
            events[-1] = replace(events[-1], resume_token=self._token)
        return events

    def _list_again(self) -> None:
        super()._list_again()
        self._synced = False

    def _event(self, change: JobChange, resume_token: str) -> FeedEvent:
        is_queued = JobStatus.from_proto(change.job.status) is JobStatus.QUEUED
        has_payloads = self._listing or change.transitions or is_queued
        is_full = self._is_full and has_payloads and not change.deleted
        view = JobView.FULL if is_full else JobView.BASIC
        return FeedEvent(
            job=Job.from_proto(change.job, view),
            transitions=tuple(map(Transition.from_proto, change.transitions)),
            deleted=change.deleted,
            deleted_assets=tuple(map(Asset.from_proto, change.deleted_assets)),
            resume_token=resume_token,
        )


def quiet_feed(last: FeedEvent, silence: float) -> FeedEvent:
    """Return the heartbeat that follows an event."""
    return FeedEvent(job=None, heartbeat=True, silence=silence, resume_token=last.resume_token)


class CompletionWatch(Feed[tuple[str, ...]]):
    """Yields the ids of jobs that may be terminal, or deleted: the caller reads them.

    It also yields no ids, whenever the service has answered: a reading that failed may be tried
    again.
    """

    def __init__(self, request: WatchJobsRequest, **limits: Any) -> None:
        super().__init__(request, relist=True, **limits)
        self._active: set[str] = set()

    def accept(self, response: WatchJobsResponse) -> Sequence[tuple[str, ...]]:
        self._record(response)
        ids = []
        for change in response.changes.changes:
            if change.deleted or JobStatus.from_proto(change.job.status).is_terminal:
                ids.append(change.job.id)
            elif self._listing:
                self._active.add(change.job.id)
        if response.synced and self._listing:
            # A listing has no terminal jobs. It may be another one, after a gap in which any job
            # may have finished.
            ids += [job_id for job_id in self._request.job_ids if job_id not in self._active]
            self._listing = False
        return [tuple(ids)]

    def _list_again(self) -> None:
        super()._list_again()
        self._active.clear()
