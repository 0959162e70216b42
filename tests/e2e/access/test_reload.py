"""The access file is reloaded: permissions change with it, also for open calls."""

import asyncio
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub
from grpc import StatusCode

from jobledger.v1.job_service_pb2 import CreateJobRequest, WatchJobsRequest
from jobledger_server.rpc.access import access as access_module
from jobledger_server.rpc.access.access import Access
from jobledger_server.rpc.access.access_file import BadAccessFile
from jobledger_server.rpc.access.lasting_calls import LastingCalls
from jobledger_server.rpc.access.policy import Policy
from jobledger_server.tuning import Tuning
from tests.support.access_file import rule, write_access_file
from tests.support.forked import Forked
from tests.support.rpc_caller import Caller, decoded, refusal
from tests.support.server_process import ServerProcess, run_server
from tests.support.work_stream import working

ADA = rule("ada", 'roles = ["owner"]\nusers = ["ada"]')
BOB = rule("bob", 'roles = ["owner"]\nusers = ["bob"]')
WORKER = rule("worker", 'roles = ["worker"]\njob_types = ["render"]')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.toml"


@pytest.fixture
async def app(start: Any, file: Path) -> Any:
    write_access_file(file, ADA + BOB + WORKER)
    return await start(access=file)


async def until(code: StatusCode, call: Callable[[], Awaitable[Any]]) -> None:
    """Repeat a call until it is answered with this code."""
    async with asyncio.timeout(30):
        while True:
            try:
                await call()
                found = StatusCode.OK
            except grpc.aio.AioRpcError as error:
                found = error.code()
            if found is code:
                return
            await asyncio.sleep(0.1)


def listing(channel: grpc.aio.Channel, token: str, user: str) -> Callable[[], Awaitable[Any]]:
    return lambda: Caller(channel, token=token).ListJobs(user_id=user)


async def test_a_change_of_the_file_changes_who_may_call(
    file: Path, channel: grpc.aio.Channel
) -> None:
    await listing(channel, "ada", "ada")()
    write_access_file(file, BOB + rule("eve", 'roles = ["operator"]'))
    await until(StatusCode.UNAUTHENTICATED, listing(channel, "ada", "ada"))
    await listing(channel, "eve", "ada")()
    write_access_file(file, ADA + BOB.replace('"bob"]', '"ada"]'))
    await until(StatusCode.OK, listing(channel, "ada", "ada"))
    assert (await refusal(listing(channel, "bob", "bob")())).reason == "ACCESS_DENIED"


async def test_a_change_that_keeps_the_time_and_size_of_the_file_counts(
    file: Path, channel: grpc.aio.Channel
) -> None:
    """As `cp -p` makes it. Likewise the mode of a file that could not be read is corrected."""
    await listing(channel, "ada", "ada")()
    before = file.stat()
    file.write_text(file.read_text().replace('users = ["ada"]', 'users = ["eve"]'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    await until(StatusCode.OK, listing(channel, "ada", "eve"))


async def test_open_calls_end_when_their_callers_permissions_change_and_others_stay(
    app: Any, file: Path, channel: grpc.aio.Channel
) -> None:
    ada, bob = Caller(channel, token="ada", timeout=60), Caller(channel, token="bob", timeout=60)
    made = {"job_type": "other"}
    jobs = await ada.job(user_id="ada", **made), await bob.job(user_id="bob", **made)
    ended = [
        ada.WatchJob(user_id="ada", job_id=jobs[0].id),
        ada.WatchJobs(user_id="ada"),
    ]
    stays = bob.WatchJob(user_id="bob", job_id=jobs[1].id)
    for stream in (*ended, stays):
        await stream.read()
    async with working(channel, job_types=["render"], token="worker") as work:
        claim = asyncio.ensure_future(
            Caller(channel, token="worker", timeout=60).ClaimJobs(
                worker_id="w", job_types=["render"], max_jobs=9, wait={"seconds": 60}
            )
        )
        wait = asyncio.ensure_future(
            OperationsStub(channel).WaitOperation(
                operations_pb2.WaitOperationRequest(name=f"jobs/{jobs[0].id}"),
                metadata=[("authorization", "Bearer ada")],
                timeout=60,
            )
        )
        while app.claim_waiters.count("render") < 1 or app.hub.watches < 4:
            await asyncio.sleep(0.01)
            claim.done() and claim.result()
            wait.done() and wait.result()
        write_access_file(file, BOB)
        app.reload()
        refused = [await refusal(_to_the_end(stream)) for stream in ended]
        refused += [decoded(await _failure(work.end())), await refusal(claim), await refusal(wait)]
    for each in refused:
        assert (each.code, each.reason) == (StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert each.message == "the caller's permissions have changed: call again"
    assert (await refusal(ada.WatchJobs(user_id="ada").read())).code is StatusCode.UNAUTHENTICATED
    await bob.CancelJob(user_id="bob", job_id=jobs[1].id)
    await _to_the_end(stays)


async def test_a_call_that_its_client_cancels_while_it_is_ended_is_cancelled(file: Path) -> None:
    write_access_file(file, ADA)
    lasting = LastingCalls()
    access = Access(file, lasting)
    caller = await access.caller(None, (), ["ada"])

    async def call() -> None:
        with lasting.until_ended(caller):
            await asyncio.Event().wait()

    called, following = asyncio.create_task(call()), asyncio.create_task(access.run())
    await asyncio.sleep(0)
    write_access_file(file, BOB)
    access.reload()
    while not called.cancelling():
        await asyncio.sleep(0)
    called.cancel()
    with pytest.raises(asyncio.CancelledError):
        await called
    following.cancel()


@pytest.mark.parametrize("tuning", [Tuning(untimed_requests=0), Tuning()])
async def test_a_request_whose_body_comes_after_the_revocation_is_refused(
    app: Any, file: Path, channel: grpc.aio.Channel
) -> None:
    """Whether gRPC waits for it or the server reads it."""
    metadata = [("authorization", "Bearer ada")]
    call = channel.stream_unary("/jobledger.v1.JobService/CreateJob")(metadata=metadata)
    await call.wait_for_connection()
    await until(StatusCode.OK, listing(channel, "ada", "ada"))  # so the headers have arrived
    write_access_file(file, BOB)
    app.reload()
    await until(StatusCode.UNAUTHENTICATED, listing(channel, "ada", "ada"))
    await call.write(CreateJobRequest(user_id="ada", job_type="t").SerializeToString())
    await call.done_writing()
    assert (await _failure(call)).code() is StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("tuning", [Tuning(untimed_requests=0)])
async def test_a_watch_whose_request_comes_after_a_grant_ends_when_that_is_withdrawn(
    app: Any, file: Path, channel: grpc.aio.Channel
) -> None:
    metadata = [("authorization", "Bearer ada")]
    call = channel.stream_stream("/jobledger.v1.JobService/WatchJobs")(metadata=metadata)
    await call.wait_for_connection()
    await until(StatusCode.OK, listing(channel, "ada", "ada"))  # so the headers have arrived
    write_access_file(file, ADA.replace('["ada"]', '["ada", "bob"]'))
    app.reload()
    await until(StatusCode.OK, listing(channel, "ada", "bob"))
    await call.write(WatchJobsRequest(user_id="bob").SerializeToString())
    await call.read()
    write_access_file(file, ADA)
    app.reload()
    async with asyncio.timeout(10):
        assert (await refusal(_to_the_end(call))).code is StatusCode.UNAVAILABLE


async def _to_the_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def _failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


async def test_a_file_that_cannot_be_used_keeps_the_old_rules_and_is_logged_once(
    file: Path, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "jobledger.access"):
        # The second one was cut, and is whole rules.
        for content in ("not toml\n[end]\n", ADA):
            caplog.clear()
            file.write_text(content)
            async with asyncio.timeout(30):
                while not caplog.records:
                    await asyncio.sleep(0.02)
            begun = time.monotonic()
            while time.monotonic() - begun < 1.2:  # two more checks of the file
                await listing(channel, "ada", "ada")()
                await asyncio.sleep(0.4)
            (record,) = caplog.records
            assert record.message == "access_file_unusable"
        file.unlink()
        await listing(channel, "ada", "ada")()
        write_access_file(file, ADA)
        await until(StatusCode.UNAUTHENTICATED, listing(channel, "bob", "bob"))
        assert "access_file_reloaded" in [record.message for record in caplog.records]


async def test_a_file_that_is_completed_while_it_is_read_is_read_again(
    file: Path, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = access_module.read_access_file

    def slowly(path: Path) -> Policy:
        try:
            return read(path)
        except BadAccessFile:
            write_access_file(file, ADA)
            raise

    monkeypatch.setattr(access_module, "read_access_file", slowly)
    await listing(channel, "bob", "bob")()
    file.write_text(ADA)  # without its end
    await until(StatusCode.UNAUTHENTICATED, listing(channel, "bob", "bob"))


def test_sighup_reloads_the_access_file_at_once(tmp_path: Path, file: Path) -> None:
    write_access_file(file, ADA)
    file.chmod(0o600)
    with ServerProcess(tmp_path, arguments=["--access", str(file)]) as server:
        write_access_file(file, "nothing")
        server.signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while "access_file_unusable" not in server.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert server.terminate() == 0
    events = [json.loads(line)["event"] for line in server.log.read_text().splitlines()]
    assert events.count("access_file_unusable") == 1


def test_sighup_does_not_end_a_server_without_an_access_file(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        server.signal(signal.SIGHUP)
        assert server.terminate() == 0


def test_sighup_does_not_end_a_server_that_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, (tmp_path / "log").open("w+b") as log:
        database = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/n"
        serve = ["serve", "--listen", "127.0.0.1:0", "--database", database]
        serve += ["--database-wait", "0"]
        with Path(os.devnull).open("rb") as nothing:
            server = Forked("jobledger-server", serve, files=(nothing, log, log), env=os.environ)
        connection, _ = silent.accept()
        with connection:
            server.send_signal(signal.SIGHUP)
            assert server.wait(30) == 1
        log.seek(0)
        assert log.read().endswith(b": no answer in time\n")


def test_check_access_prints_the_permissions_or_the_error(file: Path) -> None:
    fenced = 'fencing = "required"\nquotas = { calls_per_second = 50, watches = 3 }'
    write_access_file(file, ADA + WORKER + fenced)
    run = run_server("check-access", str(file))
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert lines[4:7] == [
        "  jobs that it creates: types *, fairness owner, max_priority 5, concurrency_keys *",
        "  fencing: optional",
        "  quotas: work_streams 64",
    ]
    assert lines[-2:] == [
        "  fencing: required",
        "  quotas: calls_per_second 50, watches 3, work_streams 64",
    ]
    assert lines[0] == "ada: token:ada"
    assert "  users: ada" in lines
    assert "  job types: render" in lines
    write_access_file(file, ADA.replace("owner", "admin"))
    run = run_server("check-access", str(file))
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"Error: {file}: Invalid enum value 'admin' - at `$.caller[0].roles[0]`\n"
