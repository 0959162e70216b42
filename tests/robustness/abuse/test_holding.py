"""A worker says that it holds a job of a type that it may not work on: it learns nothing of it."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.app import App
from tests.support.access_file import write_access_file
from tests.support.databases import sqlite_only
from tests.support.rpc_caller import Caller
from tests.support.work_stream import completed, progressed, reason, working

pytestmark = sqlite_only  # permissions do not reach a database

Start = Callable[..., Awaitable[App]]


def caller(name: str, job_types: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return (
        f'[[caller]]\nname = "{name}"\ntoken_sha256 = "{digest}"\n'
        f'roles = ["owner", "worker"]\nusers = ["*"]\njob_types = ["{job_types}"]\n'
    )


def refused_finish(job: Any) -> pb.JobUpdate:
    return completed(job)


def finish_of_another_attempt(job: Any) -> pb.JobUpdate:
    return completed(type(job)(id=job.id, attempt=job.attempt + 1))


def report(job: Any) -> pb.JobUpdate:
    return progressed(job, 1)


@pytest.mark.parametrize("update", [refused_finish, finish_of_another_attempt, report])
@pytest.mark.parametrize("message", ["first", "second"])
async def test_a_worker_that_says_it_holds_a_job_of_another_type_learns_nothing_of_it(
    start: Start, tmp_path: Path, update: Callable[[Any], pb.JobUpdate], message: str
) -> None:
    file = tmp_path / "access.toml"
    write_access_file(file, caller("ada", "*") + caller("eve", "render"))
    app = await start(access=file)
    async with grpc.aio.insecure_channel(app.address) as channel:
        ada = Caller(channel, token="ada")
        secret, own = await ada.running(job_type="secret"), await ada.running(job_type="render")
        first = [update(secret)] if message == "first" else []
        async with working(channel, token="eve", holding=[secret, own], updates=first) as eve:
            if message == "second":
                await eve.send(updates=[update(secret)])
            (result,) = await eve.results()
            assert reason(result) == "JOB_NOT_FOUND"
            for job in (secret, own):
                await ada.CancelJob(user_id="ada", job_id=job.id, reason="a secret reason")
            await ada.MarkCompleted(job_id=secret.id, attempt=1)
            await ada.MarkCompleted(job_id=own.id, attempt=1)
            signals = []
            while not (signals and signals[-1].job_id == own.id and ended(signals[-1])):
                signals += await eve.signals()
            of_secret = [each for each in signals if each.job_id == secret.id]
            # At most that it is not the worker's, which was said before anything happened to it.
            assert not any(each.HasField("cancel_requested") for each in of_secret)
            assert of_secret == [] or signals[0] == of_secret[0]
            assert len(of_secret) <= 1


def ended(signal: Any) -> bool:
    return bool(signal.HasField("lease_lost"))
