"""The kinds of updates that a load must send on streams of Work, and of which kinds an update is.

The list follows the protos: a new kind of update, or a new field of one, makes runs fail until
their load sends it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from jobledger.v1 import job_pb2
from jobledger.v1 import worker_service_pb2 as pb
from tests.checker.history import TERMINAL

NEWS = "report with news"
NO_NEWS = "numbered report without news"
NO_NEWS_BESIDE = "numbered report without news, beside news of another job"
REPEATED_NUMBER = "report with the number of an earlier one"
RENEWAL = "renewal without a report"

UPDATES = pb.JobUpdate.DESCRIPTOR.oneofs_by_name["update"].fields

KINDS = frozenset(
    {
        *(
            f"{update.name}.{field.name}"
            for update in UPDATES
            for field in update.message_type.fields
        ),
        *(f"finish as {status}" for status in TERMINAL),
        *(NEWS, NO_NEWS, NO_NEWS_BESIDE, REPEATED_NUMBER, RENEWAL),
    }
)
"""What each load must send."""


def unused(counts: Counter[str]) -> list[str]:
    """Return the kinds that a load did not send."""
    return sorted(kind for kind in KINDS if not counts[kind])


@dataclass(slots=True)
class _Reported:
    """What a worker has reported in one attempt."""

    number: int = 0
    progress: int = 0
    message: str = ""


class UpdateKinds:
    """Tells the kinds of the updates of one worker, which come in the order of their sending."""

    def __init__(self) -> None:
        self._reported: dict[tuple[str, int], _Reported] = {}

    def count(self, request: pb.WorkRequest, counts: Counter[str]) -> list[frozenset[str]]:
        """Count the updates of a message by their kinds; return the kinds of each."""
        found = [frozenset(self._kinds(update)) for update in request.updates]
        for kinds in found:
            counts.update(kinds)
        with_news = {
            update.job_id
            for update, kinds in zip(request.updates, found, strict=True)
            if not (update.HasField("output") or kinds & {NO_NEWS, REPEATED_NUMBER, RENEWAL})
        }
        counts[NO_NEWS_BESIDE] += sum(
            NO_NEWS in kinds and bool(with_news - {update.job_id})
            for update, kinds in zip(request.updates, found, strict=True)
        )
        return found

    def _kinds(self, update: pb.JobUpdate) -> Iterator[str]:
        name = update.WhichOneof("update")
        assert name is not None
        for field, _ in getattr(update, name).ListFields():
            yield f"{name}.{field.name}"
        if name == "finish":
            status = job_pb2.JobStatus.Name(update.finish.status)
            yield f"finish as {status.removeprefix('JOB_STATUS_')}"
        if name == "progress":
            yield self._kind_of_report(update)

    def _kind_of_report(self, update: pb.JobUpdate) -> str:
        report = update.progress
        if not report.ListFields():
            return RENEWAL
        reported = self._reported.setdefault((update.job_id, update.attempt), _Reported())
        if report.report_number <= reported.number:
            return REPEATED_NUMBER
        reported.number = report.report_number
        news = report.HasField("checkpoint")
        if report.progress > reported.progress:
            news, reported.progress = True, report.progress
        if report.HasField("progress_message") and report.progress_message != reported.message:
            news, reported.message = True, report.progress_message
        return NEWS if news else NO_NEWS
