"""What a change costs besides the writing: one serialization for any number of watchers."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from jobledger.v1 import job_service_pb2
from jobledger_server.app import App
from jobledger_server.rpc.jobs import feed_streams
from jobledger_server.store import Change
from jobledger_server.watch.change_buffer import ChangeBuffer
from tests.support.databases import sqlite_only
from tests.support.rpc_caller import calling

WATCHERS = 40


@sqlite_only
async def test_a_commit_is_serialized_once_for_all_watchers_of_its_jobs(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    after = ChangeBuffer.after

    def noted(*arguments: Any) -> list[Change]:
        changes = after(*arguments)
        read.append(len(changes))
        return changes

    serialized: list[int] = []
    changes_message = feed_streams.changes_message

    def made(changes: Any, token: str, **options: Any) -> bytes:
        serialized.append(len(changes))
        return changes_message(changes, token, **options)

    async with calling(app.address) as call:
        streams = [call.WatchJobs(user_id="ada") for _ in range(WATCHERS)]
        for stream in streams:
            while not (await stream.read()).synced:
                pass
        monkeypatch.setattr(ChangeBuffer, "after", noted)
        monkeypatch.setattr(feed_streams, "changes_message", made)
        request = job_service_pb2.CreateJobRequest(job_type="render")
        await call.BatchCreateJobs(user_id="ada", requests=[request] * 50)
        told = await asyncio.gather(*(stream.read() for stream in streams))
        for stream in streams:
            stream.cancel()
    assert [len(message.changes.changes) for message in told] == [50] * WATCHERS
    assert serialized == [50]
    # It was also read from the change buffer once.
    assert [count for count in read if count] == [50]


@sqlite_only
async def test_all_watchers_of_a_job_are_sent_the_same_bytes_object(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same object: not a byte is copied for the next watcher before gRPC has it."""
    handed: list[bytes] = []
    make_handler = grpc.unary_stream_rpc_method_handler

    def noting(behavior: Any, request_deserializer: Any, response_serializer: Any) -> Any:
        def noted(message: Any) -> bytes:
            handed.append(response_serializer(message) if response_serializer else message)
            return handed[-1]

        return make_handler(behavior, request_deserializer, noted)

    monkeypatch.setattr(grpc, "unary_stream_rpc_method_handler", noting)
    app = await start()
    async with calling(app.address) as call:
        job = await call.running()
        streams = [call.WatchJob(job_id=job.id, user_id="ada") for _ in range(WATCHERS)]
        for stream in streams:
            await stream.read()
        handed.clear()
        await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 5})
        for stream in streams:
            assert (await stream.read()).job.progress == 5
            stream.cancel()
    assert (len(handed), len(set(map(id, handed)))) == (WATCHERS, 1)
