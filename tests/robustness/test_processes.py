"""Real processes, real signals: what was acknowledged survives, and a drain is clean."""

import asyncio
import itertools
import json
import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from jobledger_server.sql.schema import HEAD
from tests.support.databases import several_servers, sqlite_only
from tests.support.forked import Piped
from tests.support.rpc_caller import PROCESSING, Caller, decoded, refusal
from tests.support.server_process import MANY_STREAMS, ServerProcess, run_server
from tests.support.shared_postgres import Databases

pytestmark = pytest.mark.timeout(180)

Serve = Callable[..., ServerProcess]

RECONNECT_AT_ONCE = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
]


def connected(server: ServerProcess) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(server.target, options=RECONNECT_AT_ONCE)


@pytest.fixture
def serve(tmp_path: Path, database_url: str) -> Any:
    """Make server processes on the test's database; killed at the end."""
    servers = []

    def serve(*arguments: str) -> ServerProcess:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(ServerProcess(folder, database=database_url, arguments=arguments))
        servers[-1].start()
        return servers[-1]

    yield serve
    for server in servers:
        server.kill()


@pytest.mark.slow
async def test_every_acknowledged_change_survives_kill_9(serve: Serve) -> None:
    server = serve()
    acknowledged: dict[str, int] = {}

    async def work(call: Caller) -> None:
        """Create, start and report until the server is gone."""
        job = await call.job()
        acknowledged[job.id] = job.version
        job = (await call.TransitionJob(job_id=job.id, target_status=PROCESSING)).job
        acknowledged[job.id] = job.version
        for progress in range(1, 101):
            job = (
                await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": progress})
            ).job
            acknowledged[job.id] = job.version

    async with connected(server) as channel:
        call = Caller(channel)

        async def until_it_is_gone() -> None:
            while True:
                try:
                    await work(call)
                except grpc.aio.AioRpcError as error:
                    assert error.code() is StatusCode.UNAVAILABLE  # noqa: PT017
                    return

        workers = [asyncio.create_task(until_it_is_gone()) for _ in range(32)]
        while len(acknowledged) < 40:
            await asyncio.sleep(0.001)
        server.kill()
        await asyncio.gather(*workers)
    assert sum(acknowledged.values()) > 500
    await asyncio.to_thread(server.start)
    async with connected(server) as channel:
        call = Caller(channel)
        for job_id, version in acknowledged.items():
            assert (await call.GetJob(job_id=job_id, user_id="ada")).job.version >= version


@sqlite_only
async def test_sigterm_drains_the_server(serve: Serve) -> None:
    """NOT_SERVING, watchers are sent elsewhere, running calls finish, exit code 0."""
    server = serve()
    async with connected(server) as channel:
        call = Caller(channel)
        job = await call.running()
        watch = call.WatchJob(job_id=job.id, user_id="ada")
        await watch.read()
        health = health_pb2_grpc.HealthStub(channel)
        stream = health.Watch(health_pb2.HealthCheckRequest())
        assert (await stream.read()).status == health_pb2.HealthCheckResponse.SERVING

        answers: list[Any] = []

        async def report(reporter: int) -> None:
            for report in itertools.count():
                words = f"{reporter} {report}"
                try:
                    answers.append(
                        await call.UpdateProgress(
                            job_id=job.id, attempt=1, progress={"progress_message": words}
                        )
                    )
                except grpc.aio.AioRpcError as error:
                    answers.append(error)
                    return

        reporters = [asyncio.create_task(report(i)) for i in range(16)]
        while len(answers) < 100:
            await asyncio.sleep(0.001)
        server.signal(signal.SIGTERM)

        assert (await stream.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while True:
                await watch.read()
        refused = decoded(caught.value)
        assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert "RetryInfo" in refused.details
        await asyncio.gather(*reporters)
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        # Each reporter was refused once, and none in the middle of a call.
        assert [error.code() for error in errors] == [StatusCode.UNAVAILABLE] * 16
        # By the server itself and with details, not only by a lost connection.
        turned_away = [error for error in errors if rpc_status.from_call(error) is not None]
        assert {decoded(error).reason for error in turned_away} == {"UNAVAILABLE"}
        assert await asyncio.to_thread(server.wait) == 0

    acknowledged = len(answers) - len(errors)
    await asyncio.to_thread(server.start)
    async with connected(server) as channel:
        after = (await Caller(channel).GetJob(job_id=job.id, user_id="ada")).job
    assert after.version == job.version + acknowledged


@several_servers
async def test_a_watch_of_a_draining_server_continues_at_once_at_another_one(serve: Serve) -> None:
    one, other = serve(), serve()
    both = f"ipv4:{one.target},{other.target}"
    async with grpc.aio.insecure_channel(both, options=RECONNECT_AT_ONCE) as channel:
        call = Caller(channel)
        job = await call.running()
        watch = call.WatchJob(job_id=job.id, user_id="ada")
        await watch.read()
        one.signal(signal.SIGTERM)
        ended = await refusal(watch.read())
        again = call.WatchJob(job_id=job.id, user_id="ada")
        assert (await again.read()).job == job
        assert ended.code is StatusCode.UNAVAILABLE
        assert ended.details["RetryInfo"].retry_delay == Duration()
        again.cancel()


@sqlite_only
async def test_sigterm_with_watchers_that_do_not_read_ends_the_server(
    serve: Serve,
) -> None:
    server = serve("--grace", "2")
    async with connected(server) as channel:
        call = Caller(channel)
        job = await call.job(parameters={"pad": "x" * 200_000})
        stalled = [call.WatchJob(job_id=job.id, user_id="ada") for _ in range(5)]
        for stream in stalled:
            await stream.read()
        await call.TransitionJob(job_id=job.id, target_status=PROCESSING)
        for progress in range(1, 50):
            await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": progress})
        assert await asyncio.to_thread(server.terminate) == 0


@sqlite_only
@pytest.mark.slow
async def test_2000_watches_opened_in_one_burst_all_get_their_first_message(serve: Serve) -> None:
    server = serve(*MANY_STREAMS)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        channels = [grpc.aio.insecure_channel(server.target, options) for _ in range(10)]
        calls = [Caller(await stack.enter_async_context(channel)) for channel in channels]
        call = calls[0]
        job = await call.running()
        streams = [each.WatchJob(job_id=job.id, user_id="ada") for each in calls * 200]
        firsts = await asyncio.gather(*(stream.read() for stream in streams))
        assert all(first.job == job for first in firsts)
        ended = (await call.MarkCompleted(job_id=job.id, attempt=1)).job
        lasts = await asyncio.gather(*(stream.read() for stream in streams))
        assert all(last.job == ended for last in lasts)
        codes = await asyncio.gather(*(stream.code() for stream in streams))
        assert set(codes) == {StatusCode.OK}


@sqlite_only
async def test_the_log_is_json_with_a_line_for_each_transition(serve: Serve) -> None:
    server = serve()
    async with connected(server) as channel:
        call = Caller(channel)
        job = await call.ended()
        await refusal(call.GetJob(job_id="nowhere", user_id="ada"))
    await asyncio.to_thread(server.terminate)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    events = [line["event"] for line in lines]
    assert events == ["serving", "transition", "transition", "draining", "stopped"]
    assert lines[0]["address"] == server.target
    last = lines[2]
    assert (last["job"], last["from"], last["to"]) == (job.id, "PROCESSING", "COMPLETED")
    assert (last["version"], last["attempt"], last["actor"]) == (3, 1, "w1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--database", "nonsense"), "cannot read the database URL"),
        (("--database", "sqlite:///:memory:"), "SQLite needs a file"),
        (("--database", "sqlite:////nowhere/at/all.db"), "No such file or directory"),
        (
            ("--database", "postgresql://u:secret@127.0.0.1:1/n", "--database-wait", "0"),
            "u:***@127.0.0.1:1/n",
        ),
        (("--listen", "nonsense"), "has no port"),
        (("--listen", "127.0.0.1:80000"), "has no port from 0 to 65535"),
        (("--listen", "unix:/nowhere/at/all"), "or it cannot be created"),
        (("--url-scheme", "s3://"), "'s3://' is not a URL scheme"),
        (("--listen", "256.1.1.1:0", "--insecure"), "cannot listen on 256.1.1.1:0"),
        (("--grace", "-1"), "--grace"),
        (("--heartbeat", "0.01"), "'0.01' is less than 0.05 seconds"),
        (("--caller-share", "a lot"), "'a lot' is not a number above 0 and up to 1"),
    ],
)
def test_a_bad_setting_is_refused_with_an_explanation(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    default = f"sqlite:///{tmp_path}/x.db"
    run = run_server("serve", *arguments, JOBLEDGER_DATABASE=default, JOBLEDGER_LISTEN="[::1]:0")
    assert run.returncode in (1, 2)
    assert words in run.stderr
    assert "secret" not in run.stderr
    assert "Traceback" not in run.stderr


def test_a_file_that_is_no_database_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but long enough to be looked at as one " * 10)
    run = run_server("serve", "--database", f"sqlite:///{file}", "--listen", "127.0.0.1:0")
    assert (run.returncode, run.stderr) == (
        1,
        f"Error: cannot use the database sqlite:///{file}: file is not a database\n",
    )
    assert file.read_text().startswith("not a database")


def test_a_unix_socket_of_another_server_is_refused_and_left_in_use(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    # The path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        server.target = f"unix:{folder}/socket"
        for _ in range(2):  # a socket that was left behind is used again
            with server:
                other = ("--listen", server.target, "--database", f"sqlite:///{tmp_path}/other.db")
                run = run_server("serve", *other)
                assert run.returncode == 1
                assert f"cannot listen on {server.target}: another server" in run.stderr
                assert run_server("health", "--listen", server.target).stdout == "SERVING\n"


async def test_an_sqlite_file_is_locked_by_one_server_until_it_exits_or_is_killed(
    tmp_path: Path,
) -> None:
    async with ServerProcess(tmp_path) as server:
        for command in ("serve", "migrate"):
            run = await asyncio.to_thread(run_server, command, JOBLEDGER_DATABASE=server.database)
            assert run.returncode == 1
            assert run.stderr.startswith(
                f"Error: another jobledger-server (process {server.pid}) uses the database "
            )
            assert run.stderr.endswith("for several use PostgreSQL\n")
        await asyncio.to_thread(server.restart)  # kill -9: the lock ends with the process
        assert await asyncio.to_thread(server.terminate) == 0
        await asyncio.to_thread(server.start)


def test_postgresql_is_migrated_by_a_command_and_not_by_serving(postgres: Databases) -> None:
    url = postgres.create_database()
    refused = run_server("serve", "--database", url, "--listen", "127.0.0.1:0")
    assert refused.returncode == 1
    assert "run `jobledger-server migrate`" in refused.stderr
    for _ in range(2):
        done = run_server("migrate", JOBLEDGER_DATABASE=url)
        assert (done.returncode, done.stdout) == (0, f"the database is at revision {HEAD}\n")


@pytest.mark.parametrize(
    ("listen", "arguments", "reflects"),
    [
        ("127.0.0.1:0", (), True),
        ("0.0.0.0:0", ("--insecure",), False),
    ],
)
def test_reflection_is_on_by_default_only_on_loopback(
    tmp_path: Path, listen: str, arguments: tuple[str, ...], *, reflects: bool
) -> None:
    serve = ["serve", "--listen", listen, "--database", f"sqlite:///{tmp_path}/x.db", *arguments]
    process = Piped("jobledger-server", serve, env=os.environ)
    try:
        serving = json.loads(process.stderr.readline())
        assert (serving["event"], serving["reflection"]) == ("serving", reflects)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with grpc.insecure_channel(f"127.0.0.1:{serving['address'].rpartition(':')[2]}") as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            answers = stub.ServerReflectionInfo(iter([request]), timeout=30)
            if reflects:
                services = [each.name for each in next(answers).list_services_response.service]
                assert "jobledger.v1.JobService" in services
            else:
                with pytest.raises(grpc.RpcError) as refused:
                    next(answers)
                assert refused.value.code() is StatusCode.UNIMPLEMENTED
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0
