"""A server of ReportProgress that misbehaves on demand."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1 import worker_service_pb2_grpc
from jobledger.v1.job_pb2 import Job

Script = Callable[[Iterator[Any], grpc.ServicerContext], Iterator[pb.ReportProgressResponse]]


def acknowledgement(report: Any, **fields: Any) -> pb.ReportProgressResponse:
    job = Job(id=report.job_id, progress=report.progress)
    return pb.ReportProgressResponse(job=job, **{"applied": True, **fields})


class ReportServer(worker_service_pb2_grpc.WorkerServiceServicer):
    """Plays one script for each stream, in order, then acknowledges all; remembers the reports."""

    def __init__(self) -> None:
        self.streams: list[list[tuple[str, int]]] = []
        self.scripts: list[Script] = []
        self._news = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=8))
        worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def ReportProgress(  # noqa: N802
        self, requests: Iterator[Any], context: grpc.ServicerContext
    ) -> Iterator[pb.ReportProgressResponse]:
        self.streams.append([])
        noted = self._noted(requests, self.streams[-1])
        script = self.scripts.pop(0) if self.scripts else acknowledges()
        return script(noted, context)

    def received(self, stream: int, count: int) -> list[tuple[str, int]]:
        """Wait until a stream, counted from 0, brought so many reports; return them all."""

        def there() -> bool:
            return len(self.streams) > stream and len(self.streams[stream]) >= count

        with self._news:
            assert self._news.wait_for(there, 20), self.streams
        return self.streams[stream]

    def _noted(self, requests: Iterator[Any], stream: list[tuple[str, int]]) -> Iterator[Any]:
        for request in requests:
            with self._news:
                stream.append((request.job_id, request.progress))
                self._news.notify_all()
            yield request

    def stop(self) -> None:
        self._server.stop(0).wait()


def acknowledges(
    count: int | None = None, *, then: Script | None = None, read: int = 0, **fields: Any
) -> Script:
    """Acknowledge so many reports, or all; read so many more; go on as `then` says."""

    def script(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        acknowledged = 0
        while acknowledged != count and (request := next(requests, None)) is not None:
            yield acknowledgement(request, **fields)
            acknowledged += 1
        for _ in range(read):
            next(requests, None)
        if then is not None:
            yield from then(requests, context)

    return script


def aborts(code: grpc.StatusCode) -> Script:
    def script(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        context.abort(code, "scripted")
        yield

    return script


def refuses(status: grpc.Status) -> Script:
    def script(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        context.abort_with_status(status)
        yield

    return script


def reads_on(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
    """Say nothing, whatever comes."""
    for _ in requests:
        yield from ()
