"""A watch of many jobs: which messages the caller gets, and where to resume. Pure.

The service promises that a stream with a resume token repeats nothing and skips nothing, so the
token of the last message is all that has to be kept.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobledger.core.models import FeedEvent, Job, Transition
from jobledger.core.reconnecting import Pause, Reconnecting, Why
from jobledger.errors import InvalidToken, JobledgerError, ResumeTokenExpired
from jobledger.v1.job_service_pb2 import JobChange, WatchJobsRequest, WatchJobsResponse


class FeedWatch(Reconnecting[WatchJobsRequest, WatchJobsResponse, FeedEvent]):
    """Resumes after the last token that was seen; never ends by itself.

    Args:
        relist: whether to list the jobs again if the service refuses the token. Otherwise the
            refusal is raised.
        heartbeats: whether the caller gets them.
    """

    def __init__(
        self, request: WatchJobsRequest, *, relist: bool, heartbeats: bool, **limits: Any
    ) -> None:
        super().__init__(**limits)
        self._request = request
        self._token = request.resume_token
        self._relist = relist
        self._heartbeats = heartbeats
        self._synced = False

    def request(self) -> WatchJobsRequest:
        request = WatchJobsRequest()
        request.CopyFrom(self._request)
        request.resume_token = self._token
        return request

    def name(self) -> str:
        return "the jobs"

    def accept(self, response: WatchJobsResponse) -> Sequence[FeedEvent]:
        self.heard(progress=bool(response.changes) or response.heartbeat)
        before, self._token = self._token, response.resume_token or self._token
        events = [_event(change, before) for change in response.changes]
        # Each stream sends `synced`. The caller gets the first one, which ends the listing or the
        # changes that were missed.
        first = response.synced and not self._synced
        self._synced = self._synced or response.synced
        if first or (response.heartbeat and self._heartbeats):
            events.append(FeedEvent(job=None, synced=first, heartbeat=response.heartbeat))
        if events:
            # Only now the caller has everything up to the token.
            events[-1] = replace(events[-1], resume_token=self._token)
        return events

    def is_gap(self, failure: JobledgerError) -> bool:
        """Whether the service refused the token: it is too old, or of another database."""
        refused = isinstance(failure, ResumeTokenExpired | InvalidToken)
        return self._relist and refused and bool(self._token)

    def broken(self, failure: JobledgerError) -> Pause:
        pause = super().broken(failure)
        if pause.why is Why.GAP:
            self._token = ""
            self._synced = False
        return pause


def _event(change: JobChange, resume_token: str) -> FeedEvent:
    return FeedEvent(
        job=Job.from_proto(change.job),
        transitions=tuple(map(Transition.from_proto, change.transitions)),
        deleted=change.deleted,
        resume_token=resume_token,
    )
