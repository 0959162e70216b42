"""Watching many jobs: which message is for the caller, and where to go on. Pure.

The service's promise is that a stream with a token tells nothing twice and
leaves nothing out, so the token of the last message is all that has to be kept.
"""

from typing import Any

from jobledger.v1.job_service_pb2 import WatchJobsRequest, WatchJobsResponse
from jobledger_client._reconnect import Pause, Reconnecting, Why
from jobledger_client.errors import InvalidToken, JobledgerError, ResumeTokenExpired


class JobsWatch(Reconnecting[WatchJobsRequest, WatchJobsResponse]):
    """One watch of many jobs. It has no end.

    anew: whether to list the jobs again where the token is refused. Otherwise the
    refusal is raised.
    heartbeats: whether the caller gets them.
    """

    def __init__(
        self, request: WatchJobsRequest, *, anew: bool, heartbeats: bool, **limits: Any
    ) -> None:
        super().__init__(**limits)
        self._request = request
        self._token = request.resume_token
        self._anew = anew
        self._heartbeats = heartbeats
        self._synced = False

    def request(self) -> WatchJobsRequest:
        request = WatchJobsRequest()
        request.CopyFrom(self._request)
        request.resume_token = self._token
        return request

    def name(self) -> str:
        return "the watch"

    def accept(self, response: WatchJobsResponse) -> bool:
        has_job = response.HasField("job")
        self.heard(progress=has_job or response.heartbeat)
        # The caller has all that came before: the loop hands over a message
        # before it reads the next one.
        self._token = response.resume_token or self._token
        if response.synced:
            # Each stream says it; to the caller it ends a listing, or the catching
            # up with a token of its own, and there is one of these.
            first, self._synced = not self._synced, True
            return has_job or first
        return has_job or (response.heartbeat and self._heartbeats)

    def is_gap(self, failure: JobledgerError) -> bool:
        """Whether the service refused the token: it is too old, or of another database.

        Whether the client was given it just now or the caller kept it for a year
        makes no difference: what came after it cannot be told.
        """
        refused = isinstance(failure, ResumeTokenExpired | InvalidToken)
        return self._anew and refused and bool(self._token)

    def broken(self, failure: JobledgerError) -> Pause:
        pause = super().broken(failure)
        if pause.why is Why.GAP:
            self._token = ""
            self._synced = False
        return pause
