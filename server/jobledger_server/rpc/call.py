"""One call: who makes it, and what its handler needs of gRPC."""

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import grpc

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import Caller

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from jobledger_server.rpc.owner import Metadata
    from jobledger_server.telemetry.traces import Traces

Context = grpc.aio.ServicerContext[Any, Any]

UNCOUNTED_BYTES = 4 * 1024
"""A message of a stream that is not larger does not count while it is not sent."""

UNKNOWN = Caller("")
"""The caller of a call that is not authenticated yet. It may do nothing."""


def address_of(peer: str) -> str:
    """Return the address of a peer without its port."""
    return peer.rpartition(":")[0]


@dataclass(eq=False, slots=True)
class Call:
    """A call. It counts the bytes of its messages."""

    context: Context
    caller: Caller = UNKNOWN
    received: int = 0
    sent: int = 0
    status: object = grpc.StatusCode.CANCELLED
    """A call is cancelled unless it ends otherwise."""
    span: "Span | None" = None
    traces: "Traces | None" = None
    unread: Admission | None = None
    """Counts the bytes of its messages that are not sent yet."""
    begun: float = field(default_factory=perf_counter)

    @property
    def metadata(self) -> "Metadata":
        """What the client has sent before its request."""
        return self.context.invocation_metadata() or ()

    async def write(self, message: bytes, *, refuse: bool = False) -> None:
        """Send a message of a stream, whose bytes count until the client has room for it.

        With `refuse` it raises LimitExceeded if the caller leaves too many bytes unread.
        """
        size = len(message)
        self.sent += size
        if self.span is not None:
            self.end_span("OK")
        if self.unread is None or size <= UNCOUNTED_BYTES:
            await self.context.write(message)
            return
        self.unread.acquire(self.caller, size, refuse=refuse)
        try:
            await self.context.write(message)
        finally:
            self.unread.release(self.caller, size)

    async def read(self) -> Any:
        """Receive a message of a stream, or grpc.aio.EOF."""
        message = await self.context.read()
        if message is not grpc.aio.EOF:
            self.received += len(message)
        return message

    def end_span(self, status: str) -> None:
        """End the call's span, if it has one that has not ended: that of a stream ends early."""
        if self.span is not None and self.traces is not None:
            self.traces.end(self.span, status)
            self.span = None
