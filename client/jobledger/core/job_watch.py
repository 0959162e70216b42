"""A watch of one job: which messages the caller gets. Pure, like reconnecting.py."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobledger.core.models import Job, JobChange, JobView, Transition
from jobledger.core.reconnecting import EventT, Reconnecting
from jobledger.v1.job_service_pb2 import WatchJobRequest, WatchJobResponse


class JobStream(Reconnecting[WatchJobRequest, WatchJobResponse, EventT]):
    """Resumes after the version that was seen."""

    def __init__(self, request: WatchJobRequest, **limits: Any) -> None:
        super().__init__(**limits)
        self._request = request
        self._seen = request.after_version

    def request(self) -> WatchJobRequest:
        request = WatchJobRequest()
        request.CopyFrom(self._request)
        request.after_version = self._seen
        return request

    def name(self) -> str:
        return f"job {self._request.job_id}"


class JobWatch(JobStream[JobChange]):
    """Yields the job as it changes, until it is terminal.

    The first message of each stream has the job's parameters, and the last one its result. Every
    job that the caller gets has both, as far as they exist.

    Args:
        heartbeats: whether a message without news makes a heartbeat, once there is a job.
    """

    def __init__(
        self, request: WatchJobRequest, *, heartbeats: bool = False, **limits: Any
    ) -> None:
        super().__init__(request, **limits)
        self._heartbeats = heartbeats
        self._newest: Job | None = None
        self._view = JobView.from_proto(request.view)
        self._parameters: dict[str, Any] | None = {} if self._view is JobView.FULL else None

    def accept(self, response: WatchJobResponse) -> Sequence[JobChange]:
        if response.heartbeat:
            self.received(progress=True)
            return self._quiet()
        job = Job.from_proto(response.job, self._view)
        is_new = job.version > self._seen
        self.received(progress=is_new)
        self._parameters = job.parameters or self._parameters
        # A terminal state is delivered whatever its version: a server restored from a backup may
        # be behind what was seen, and nothing comes after this.
        self.ended = job.is_terminal
        job = replace(job, parameters=self._parameters)
        if not is_new and not self.ended:
            if job.version == self._seen:
                self._newest = job
            return self._quiet()
        self._seen = job.version
        self._newest = job
        return (JobChange(job, tuple(map(Transition.from_proto, response.transitions))),)

    def _quiet(self) -> Sequence[JobChange]:
        if self._newest is None or not self._heartbeats:
            return ()
        return (JobChange(self._newest, heartbeat=True),)


def quiet_job(last: JobChange, silence: float) -> JobChange:
    """Return the heartbeat that follows a change."""
    return replace(last, transitions=(), heartbeat=True, silence=silence)
