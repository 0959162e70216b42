"""A watch of a job's output: which messages the caller gets. Pure, like reconnecting.py."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobledger.core.output import OutputPiece, TextCuts
from jobledger.core.reconnecting import Reconnecting
from jobledger.v1.job_service_pb2 import WatchOutputRequest, WatchOutputResponse


class OutputWatch(Reconnecting[WatchOutputRequest, WatchOutputResponse, OutputPiece]):
    """Yields the output as it comes, until nothing can follow.

    Resumes after the last message. A message without data makes a piece if it says something new:
    that the caller has all that was stored, for the first time, or that the stream is closed.

    Args:
        heartbeats: whether any other one makes a heartbeat.
    """

    def __init__(
        self, request: WatchOutputRequest, *, heartbeats: bool = False, **limits: Any
    ) -> None:
        super().__init__(**limits)
        self._request = request
        self._next: int | None = None
        self._heartbeats = heartbeats
        self._up_to_date = False
        self._is_first = True
        self._cuts = TextCuts()

    def request(self) -> WatchOutputRequest:
        request = WatchOutputRequest()
        request.CopyFrom(self._request)
        if self._next is not None:
            request.after_offset = self._next
        self._is_first = True
        return request

    def name(self) -> str:
        return f"the output of job {self._request.job_id}"

    def accept(self, response: WatchOutputResponse) -> Sequence[OutputPiece]:
        # The first message of each stream may say no more than where it is.
        self.received(progress=bool(response.data) or not self._is_first)
        self._is_first = False
        self._next = response.next_offset
        self.ended = response.closed
        is_new = response.up_to_date and not self._up_to_date
        self._up_to_date = self._up_to_date or response.up_to_date
        if response.data or response.truncated_before or response.closed or is_new:
            before, after = self._cuts.cut(response)
            return (OutputPiece.from_proto(response, before=before, after=after),)
        if not self._heartbeats:
            return ()
        return (_heartbeat(response.next_offset),)


def quiet_output(last: OutputPiece, silence: float) -> OutputPiece:
    """Return the heartbeat that follows a piece."""
    return replace(_heartbeat(last.next_offset), silence=silence)


def _heartbeat(offset: int) -> OutputPiece:
    return OutputPiece(offset=offset, next_offset=offset, heartbeat=True)
