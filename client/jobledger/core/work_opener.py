"""Opens streams of Work, for AsyncClient."""

from typing import TYPE_CHECKING, TypeAlias

import grpc

from jobledger.core.aio.base import AsyncCalls
from jobledger.core.channels import channel_closed

if TYPE_CHECKING:
    from jobledger.v1.worker_service_pb2 import WorkRequest, WorkResponse

WorkCall: TypeAlias = "grpc.aio.StreamStreamCall[WorkRequest, WorkResponse]"


class WorkOpener(AsyncCalls):
    """For workers: all of a worker's work over one stream."""

    async def open_work(self) -> WorkCall:
        """Open a stream of Work, for programs that keep the rules of leases themselves.

        It is gRPC's own call: `write` takes a `WorkRequest`, the first with `hello`, and `read`
        returns a `WorkResponse`. `Worker` keeps the rules for its handlers.

        Raises:
            ClientClosed: the client, or its channel, is closed.
            DeadlineExceeded: the token function took longer than the client's timeout.
            Unavailable: the token function raised OSError.
        """
        metadata = await self._headers((), self._timeout)
        try:
            return self._channels.connection().worker.Work(metadata=metadata)
        except grpc.aio.UsageError as error:
            raise channel_closed() from error
