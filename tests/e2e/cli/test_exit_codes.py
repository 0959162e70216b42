"""How the commands exit: a code for scripts, and one line on stderr."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_status import rpc_status

PROGRAM = Path(sys.executable).with_name("jobledger")


def assert_refused(run, code, words):
    assert run.returncode == code, run.stderr
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_no_such_job_is_4(jobledger):
    for command in ("get", "watch", "transitions", "assets", "rerun", "cancel", "delete"):
        assert_refused(jobledger(command, str(uuid.uuid4())), 4, "")


def test_health_is_0_while_the_service_serves_and_6_when_it_is_unreachable(own_server, shell):
    jobledger = shell(own_server.target, "")
    assert jobledger.ok("health") == "SERVING\n"
    assert json.loads(jobledger.ok("health", "--json")) == {"status": "SERVING"}
    own_server.kill()
    words = f"error: cannot connect to {own_server.target}: Connection refused"
    assert_refused(jobledger("--timeout", "5", "health"), 6, words)


def test_health_is_6_while_the_service_drains(shell):
    drains = HealthServicer()
    drains.set("", HealthCheckResponse.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor())
    add_HealthServicer_to_server(drains, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        run = shell(target, "")("health")
        in_json = shell(target, "")("health", "--json")
    finally:
        server.stop(None).wait()
    assert (run.returncode, run.stdout, run.stderr) == (6, "NOT_SERVING\n", "")
    assert (in_json.returncode, json.loads(in_json.stdout)) == (6, {"status": "NOT_SERVING"})


def test_a_call_that_the_status_does_not_allow_is_5(jobledger, client):
    for command in ("delete", "rerun"):
        assert_refused(jobledger(command, client.create_job("render").id), 5, "")


def test_an_argument_that_the_service_refuses_exits_with_2_and_is_named(jobledger):
    assert_refused(jobledger("create", "no spaces"), 2, "job_type")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command"),
        (["get"], "JOB"),
        (["watch", "--all", "x"], "not both"),
        (["watch", "x", "--resume", "t"], "--all"),
        (["watch", "--all", "--label", "x"], "KEY=VALUE"),
        (["top"], "jobledger watch --all --json"),
        (["list", "--status", "DONE"], "DONE"),
        (["list", "--limit", "-1"], "--limit"),
        (["--timeout", "0", "list"], "--timeout"),
        (["--token", "a b", "list"], "token"),
        (["--server", "", "list"], "--server"),
        (["list", "--created-after", "yesterday"], "2026-11-01"),
        (["create", "render", "--at", "2126-11-01", "--delay", "2h"], "not both"),
        (["create", "render", "--initial-backoff", "0.01s"], "retry_policy.initial_backoff"),
        (["rerun"], "--all"),
        (["cancel", "--yes"], "--all"),
        (["delete", "--all-users", "--yes"], "--all"),
        (["delete", "--all"], "--yes"),
        (["delete", "--all", "--type", "render", "--yes"], "not both"),
        (["rerun", "x", "--pace", "5"], "--pace"),
        (["rerun", "--status", "queued", "--yes"], "queued"),
        (["create", "render", "--unique-policy", "reject"], "unique_policy"),
        (["create", "render", "--request-id", ""], "--request-id"),
        (["pause"], "--concurrency-key"),
        (["resume", "render", "--concurrency-key", "a"], "--concurrency-key"),
        (["limits", "set", "stripe", "many"], "N"),
        (["worker", "exec", "render", "--"], "after --"),
        (["worker", "exec", "render", "--", "/does/not/exist"], "/does/not/exist"),
        (["create", "render", "--parameters", "{"], "not JSON"),
        (["create", "render", "--parameters", "[" * 100_000], "not JSON"),
        (["create", "render", "--parameters", "@/does/not/exist"], "No such file"),
    ],
)
def test_wrong_usage_exits_with_2_and_shows_the_usage(jobledger, arguments, words):
    assert_refused(jobledger(*arguments), 2, words)


def test_a_worker_that_the_service_refuses_exits_with_2(jobledger):
    run = jobledger("worker", "exec", "render", "--lease", "1s", "--", "true")
    assert run.returncode == 2
    started, error = run.stderr.splitlines()
    assert "started" in started
    assert error.startswith("error: hello.lease_duration: ")


def test_a_missing_user_exits_with_2_and_an_explanation(jobledger):
    del jobledger.environment["JOBLEDGER_USER"]
    for command in (["list"], ["watch", "--all"], ["top", "--once"]):
        assert_refused(jobledger(*command), 2, "JOBLEDGER_USER")


@pytest.mark.parametrize("command", [(), ("worker",), ("--user", "ada")])
def test_without_a_command_it_shows_its_help_and_succeeds(jobledger, command):
    help_option = ("--help",) if "worker" not in command else ("worker", "--help")
    assert jobledger.ok(*command) == jobledger.ok(*help_option)


@pytest.mark.parametrize(
    "command",
    [["list"], ["watch", "--all"]],
)
def test_an_unreachable_server_is_6_and_named(shell, command):
    assert_refused(shell("localhost:1", "ada")("--timeout", "2", *command), 6, "localhost:1")


def test_an_address_that_accepts_and_never_answers_is_6_and_named(shell):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        jobledger = shell(target, "ada")

        def run(command):
            return jobledger("--timeout", "0.5", *command.split())

        with ThreadPoolExecutor() as threads:
            commands = ("list", "watch x", "watch --all", "top --once")
            for ended in threads.map(run, commands):
                assert_refused(ended, 6, target)


@pytest.mark.parametrize("command", ["cancel", "delete"])
def test_each_of_several_jobs_has_its_line_and_the_worst_is_the_exit_code(
    jobledger, client, command
):
    done, queued = client.create_job("render"), client.create_job("render")
    client.mark_completed(client.start_job(done.id).id, attempt=1)
    nobody = str(uuid.uuid4())
    run = jobledger(command, "no-uuid", done.id, queued.id, nobody, done.id)
    refused = {"cancel": ["no-uuid", nobody], "delete": ["no-uuid", queued.id, nobody]}[command]
    errors = run.stderr.splitlines()
    assert len(errors) == len(refused)
    for error, job_id in zip(errors, refused, strict=True):
        assert error.startswith("error: ")
        assert job_id in error
    if command == "cancel":
        assert run.returncode == 4
        assert run.stdout == f"already COMPLETED {done.id}\ncancelled {queued.id}\n"
    else:
        assert run.returncode == 5
        assert run.stdout == f"deleted {done.id}\n"


def test_after_an_outage_the_rest_of_several_jobs_is_not_tried(shell):
    run = shell("127.0.0.1:1", "ada")("--timeout", "0.5", "delete", *"XYZ")
    assert run.returncode == 6
    first, *others = run.stderr.splitlines()
    assert first.startswith("error: X: ")
    assert others == ["error: Y: not tried", "error: Z: not tried"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("list <&- >&- 2>&-", 0),
        ("create render --parameters - <&-", 2),
        ("get 00000000-0000-7000-8000-000000000000 >&- 2>&-", 4),
        ("get 00000000-0000-7000-8000-000000000000 2</dev/null", 4),
    ],
)
def test_streams_that_are_closed_or_only_read_are_no_bug(jobledger, command, code):
    run = subprocess.run(
        ["/bin/sh", "-c", f"exec {PROGRAM} {command}"],
        check=False,
        env=jobledger.environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr


def test_an_output_that_cannot_be_written_is_74(jobledger):
    with Path(os.devnull).open() as only_read:
        run = subprocess.run(
            [PROGRAM, "list"],
            env=jobledger.environment,
            stdout=only_read,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    expected = f"error: cannot write the output: {os.strerror(errno.EBADF)}\n"
    assert (run.returncode, run.stderr) == (74, expected)


def test_grpc_prints_nothing_of_its_own(server):
    # At a server without TLS it would print a failed handshake.
    command = [
        PROGRAM,
        "--tls",
        "--server",
        server.target,
        "--timeout",
        "2",
        "--user",
        "a",
        "list",
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_refused(run, 6, server.target)


def test_a_server_that_does_not_answer_in_time_is_6(shell):
    gone = threading.Event()

    def answer(request, context):
        gone.wait(30)

    with fake_server(answer) as target:
        assert_refused(shell(target, "ada")("--timeout", "0.3", "get", "x"), 6, "")
        gone.set()


class fake_server:  # noqa: N801
    """A server that answers every call with one function."""

    def __init__(self, answer):
        handler = grpc.unary_unary_rpc_method_handler(answer)

        class Handlers(grpc.GenericRpcHandler):
            def service(self, details):
                return handler

        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers([Handlers()])
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self):
        self._server.start()
        return f"127.0.0.1:{self._port}"

    def __exit__(self, *_):
        self._server.stop(0).wait()


@pytest.mark.parametrize(
    ("code", "reason", "exit_code", "words"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED", 7, "scripted"),
        (grpc.StatusCode.INTERNAL, "INTERNAL", 70, "correlation id c-1"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", 6, "scripted"),
        (grpc.StatusCode.ABORTED, "LEASE_LOST", 5, "scripted"),
    ],
)
def test_other_refusals_have_their_codes(shell, code, reason, exit_code, words):
    status = Status(code=code.value[0], message="scripted\nwords")
    packed = AnyMessage()
    packed.Pack(ErrorInfo(reason=reason, domain="jobledger", metadata={"correlation_id": "c-1"}))
    status.details.append(packed)

    def answer(request, context):
        context.abort_with_status(rpc_status.to_status(status))

    with fake_server(answer) as target:
        assert_refused(shell(target, "ada")("get", "x"), exit_code, words)


def test_an_answer_with_an_unknown_error_is_70(shell):
    def answer(request, context):
        raise RuntimeError("boom")

    with fake_server(answer) as target:
        assert_refused(shell(target, "ada")("get", "x"), 70, "boom")


def test_a_service_that_lacks_the_call_is_named_as_too_old(shell):
    def answer(request, context):
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    with fake_server(answer) as target:
        assert_refused(shell(target, "ada")("stats"), 6, "may be too old: Method not found!")


@pytest.mark.parametrize(("missing", "drawing"), [("click", ""), ("rich", "top")])
def test_without_its_extra_it_says_what_to_install(missing, drawing):
    # None in sys.modules is how Python spells "not installed". rich is asked for
    # when it is to draw.
    program = f"""
import sys
sys.modules[{missing!r}] = None
if {missing!r} == "rich":
    import importlib
    from jobledger.cli import commands
    commands.jobledger.main = lambda **_: importlib.import_module("jobledger.cli.{drawing}")
from jobledger.cli.main import main
main()
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert_refused(run, 2, "install 'jobledger[cli]'")


INTERRUPTED = """
import os, signal, sys
from jobledger.cli.main import main

chosen, left = sys.argv.pop(1), int(sys.argv.pop(1))

def count(event, arguments):
    global left
    if event == chosen:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(count)
main()
"""


@pytest.mark.parametrize(
    ("event", "count"),
    [
        *(("import", count) for count in (1, 300)),
        # The first socket is that of the event loop.
        ("socket.__new__", 2),
    ],
)
def test_an_interrupt_during_startup_is_130_and_prints_nothing(jobledger, event, count):
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, event, str(count), "watch", "--all"],
        env=jobledger.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")
