"""Answers that their clients have not read yet: counted in bytes, and dropped as they are sent."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from starlette.types import Receive, Scope, Send

from jobledger.v1.job_pb2 import JOB_VIEW_FULL
from jobledger_gateway.budget import Holding
from jobledger_gateway.limits import FULL_JOB_BYTES, PAGE_BYTES, PART_BYTES, ROW_BYTES, USUAL_ROWS


def expected_bytes(request: Message) -> int:
    """Return how many bytes the service's answer has at most, or nearly so.

    They are counted before the service is asked: an answer is held before its size is known.
    """
    fields: Any = request
    names = request.DESCRIPTOR.fields_by_name
    is_full = "view" in names and fields.view == JOB_VIEW_FULL
    if "page_size" not in names:
        return FULL_JOB_BYTES if is_full else ROW_BYTES
    rows = fields.page_size or USUAL_ROWS
    return PAGE_BYTES if is_full else min(rows * ROW_BYTES, PAGE_BYTES)


class Answer:
    """An answer that holds what it has not sent yet.

    Args:
        content: its body.
        status: its status.
        headers: its headers; `content-type` if it is not JSON.
        held: what counts for it; at least what was expected.

    Raises:
        HttpProblem: it is larger than expected, and too much with the others.
    """

    def __init__(
        self, content: bytes, status: int, headers: Mapping[str, str], held: Holding
    ) -> None:
        held.become(len(content))
        self._held = held
        self._status = status
        self._headers = {
            "content-type": "application/json",
            **headers,
            "content-length": str(len(content)),
        }
        self._parts = parts(content)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the parts, each when the client has read enough of those before."""
        headers = [(name.lower().encode(), text.encode()) for name, text in self._headers.items()]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        while self._parts:
            part = self._parts.pop()
            body = {"type": "http.response.body", "body": part, "more_body": bool(self._parts)}
            await send(body)
            self._held.give_back(len(part))


def parts(content: bytes) -> list[bytes]:
    """Return the parts that are sent one by one, the last one first."""
    if len(content) <= PART_BYTES:
        return [content]
    return [content[at : at + PART_BYTES] for at in range(0, len(content), PART_BYTES)][::-1]
