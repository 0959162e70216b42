"""What the handlers of one worker of the library write, and what the worker appends of it."""

import time
from dataclasses import dataclass, field

from jobledger.v1 import worker_service_pb2 as pb
from tests.checker.history import Append, History, Outcome


@dataclass(slots=True)
class _Stream:
    """A stream of output, in one attempt.

    `sent` is how many bytes of it were sent, and `kept` how many of those were acknowledged.
    `refused` says that the last append was, and `unsure` that a write failed.
    """

    written: bytearray = field(default_factory=bytearray)
    sent: int = 0
    kept: int = 0
    refused: bool = False
    unsure: bool = False


class ObservedOutput:
    """Compares what handlers write with what is sent, and writes the appends down."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._streams: dict[tuple[str, int], dict[str, _Stream]] = {}

    def write(self, job_id: str, attempt: int, stream: str, data: bytes) -> None:
        """Take note of what a handler is about to write."""
        self._of(job_id, attempt, stream).written += data

    def fail(self, job_id: str, attempt: int, stream: str) -> None:
        """Take note that the last write failed: it may be sent or not."""
        self._of(job_id, attempt, stream).unsure = True

    def send(self, update: pb.JobUpdate) -> None:
        """Take note of what is sent for the first time."""
        if not update.HasField("output"):
            return
        stream = self._of(update.job_id, update.attempt, update.output.stream)
        end = stream.sent + len(update.output.data)
        if stream.written[stream.sent : end] != update.output.data:
            what = f"append {update.output.number} is not what was written at {stream.sent}"
            self._note(update, update.output.stream, what)
        stream.sent = end

    def refuse(self, update: pb.JobUpdate) -> None:
        """Take note that an update was refused, for good or for now."""
        if update.HasField("output"):
            self._of(update.job_id, update.attempt, update.output.stream).refused = True

    def record(
        self,
        update: pb.JobUpdate,
        sent: float,
        tries: int,
        outcome: Outcome,
        result: pb.UpdateResult | None,
    ) -> None:
        """Write an append down."""
        output = update.output
        if outcome is Outcome.ACKNOWLEDGED:
            stream = self._of(update.job_id, update.attempt, output.stream)
            stream.kept += len(output.data)
            stream.refused = False
        self._history.appends.append(
            Append(
                job_id=update.job_id,
                stream=output.stream,
                attempt=update.attempt,
                number=output.number,
                data=output.data,
                sent=sent,
                answered=time.monotonic(),
                tries=tries,
                outcome=outcome,
                next_offset=0 if result is None else result.next_offset,
            )
        )

    def finish(self, update: pb.JobUpdate) -> None:
        """Judge a job that was finished: what was written is stored, unless it was refused."""
        for name, stream in self._streams.get((update.job_id, update.attempt), {}).items():
            if stream.kept < len(stream.written) and not (stream.refused or stream.unsure):
                what = f"{stream.kept} of {len(stream.written)} bytes were stored before the end"
                self._note(update, name, what)

    def _note(self, update: pb.JobUpdate, stream: str, what: str) -> None:
        where = f"{update.job_id}, attempt {update.attempt}, stream '{stream}'"
        self._history.unsent.append(f"{where}: {what}")

    def _of(self, job_id: str, attempt: int, stream: str) -> _Stream:
        return self._streams.setdefault((job_id, attempt), {}).setdefault(stream, _Stream())
