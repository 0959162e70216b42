"""A watch of one job: which messages the caller gets. Pure, like reconnecting.py."""

from collections.abc import Sequence
from typing import Any

from jobledger.core.models import Job, JobChange, JobStatus, Transition
from jobledger.core.reconnecting import Reconnecting
from jobledger.v1.job_service_pb2 import WatchJobRequest, WatchJobResponse


class JobWatch(Reconnecting[WatchJobRequest, WatchJobResponse, JobChange]):
    """Resumes after the version that was seen, until the job is terminal."""

    def __init__(self, request: WatchJobRequest, **limits: Any) -> None:
        super().__init__(**limits)
        self._job_id = request.job_id
        self._user_id = request.user_id
        self._seen = request.after_version

    def request(self) -> WatchJobRequest:
        return WatchJobRequest(job_id=self._job_id, user_id=self._user_id, after_version=self._seen)

    def name(self) -> str:
        return f"job {self._job_id}"

    def accept(self, response: WatchJobResponse) -> Sequence[JobChange]:
        version = response.job.version
        is_new = version > self._seen and not response.heartbeat
        self.heard(progress=is_new or response.heartbeat)
        # A terminal state is delivered whatever its version: a server restored from a backup may
        # be behind what was seen, and nothing comes after this.
        self.ended = JobStatus.from_proto(response.job.status).is_terminal
        if not is_new and not self.ended:
            return ()
        self._seen = version
        transitions = tuple(map(Transition.from_proto, response.transitions))
        return (JobChange(Job.from_proto(response.job), transitions),)
