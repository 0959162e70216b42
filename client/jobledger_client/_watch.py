"""Watching one job: which message is news. Pure, like _reconnect.py."""

from typing import Any, Final

from jobledger.v1.job_pb2 import JobStatus
from jobledger.v1.job_service_pb2 import WatchJobRequest, WatchJobResponse
from jobledger_client._reconnect import Reconnecting

TERMINAL_STATUSES: Final = frozenset(
    {
        JobStatus.JOB_STATUS_COMPLETED,
        JobStatus.JOB_STATUS_PARTIAL,
        JobStatus.JOB_STATUS_FAILED,
    }
)
"""The states in which a job never changes again."""


class Watch(Reconnecting[WatchJobRequest, WatchJobResponse]):
    """One watch of a job; goes on after the version that was seen, to the job's end."""

    def __init__(self, request: WatchJobRequest, **limits: Any) -> None:
        super().__init__(**limits)
        self._job_id = request.job_id
        self._user_id = request.user_id
        self._seen = request.after_version

    def request(self) -> WatchJobRequest:
        return WatchJobRequest(job_id=self._job_id, user_id=self._user_id, after_version=self._seen)

    def name(self) -> str:
        return f"job {self._job_id}"

    def accept(self, response: WatchJobResponse) -> bool:
        version = response.job.version
        news = version > self._seen and not response.heartbeat
        self.heard(progress=news or response.heartbeat)
        if response.job.status in TERMINAL_STATUSES:
            # Whatever its version: a server restored from a backup may be
            # behind what was seen, and nothing comes after this.
            self.ended = True
            return True
        if news:
            self._seen = version
        return news
