"""How the commands end: a code for scripts, and one line on stderr."""

import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_status import rpc_status


def assert_refused(run, code, words):
    assert run.returncode == code, run.stderr
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_no_such_job_is_4(jobledger):
    for command in ("get", "watch", "transitions", "assets", "cancel", "delete"):
        assert_refused(jobledger(command, str(uuid.uuid4())), 4, "")


def test_health_is_0_while_the_service_serves_and_6_when_it_is_gone(own_server, shell):
    jobledger = shell(own_server.target, "")
    assert jobledger.ok("health") == "SERVING\n"
    own_server.kill()
    assert_refused(jobledger("--timeout", "5", "health"), 6, "")


def test_health_is_6_while_the_service_drains(shell):
    drains = HealthServicer()
    drains.set("", HealthCheckResponse.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor())
    add_HealthServicer_to_server(drains, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        run = shell(target, "")("health")
    finally:
        server.stop(None).wait()
    assert (run.returncode, run.stdout, run.stderr) == (6, "NOT_SERVING\n", "")


def test_a_job_whose_state_speaks_against_it_is_5(jobledger, client):
    assert_refused(jobledger("delete", client.create_job("render").id), 5, "")


def test_a_request_id_used_for_something_else_is_5(jobledger):
    jobledger.ok("create", "render", "--request-id", "r")
    assert_refused(jobledger("create", "bake", "--request-id", "r"), 5, "")


def test_what_the_service_finds_wrong_is_2_and_named(jobledger):
    assert_refused(jobledger("create", "no spaces"), 2, "job_type")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing command"),
        (["frobnicate"], "No such command"),
        (["get"], "JOB"),
        (["watch"], "JOB"),
        (["watch", "--all", "x"], "not both"),
        (["watch", "--all-users", "x"], "not both"),
        (["watch", "x", "--type", "render"], "--all"),
        (["watch", "x", "--label", "k=v"], "--all"),
        (["watch", "x", "--resume", "t"], "--all"),
        (["watch", "--all", "--label", "x"], "KEY=VALUE"),
        (["watch", "--all", "--type", "no spaces"], "job_types"),
        (["watch", "--all", "--json", "--label", "=v"], "labels"),
        (["top"], "jobledger watch --all --json"),
        (["list", "--status", "DONE"], "DONE"),
        (["list", "--limit", "-1"], "--limit"),
        (["--timeout", "0", "list"], "--timeout"),
        (["--token", "a b", "list"], "token"),
        (["create", "render", "--label", "x"], "KEY=VALUE"),
        (["create", "render", "--run-timeout", "soon"], "90s"),
        (["create", "render", "--queue-timeout", "-5"], "90s"),
        (["create", "render", "--max-attempts", "0"], "--max-attempts"),
        (["worker", "render"], "--exec"),
        (["worker", "--exec", "true"], "TYPE"),
        (["worker", "render", "--exec", ""], "no command"),
        (["worker", "render", "--exec", "'"], "quotation"),
        (["worker", "render", "--exec", "/does/not/exist"], "/does/not/exist"),
        (["worker", "render", "--exec", "true", "--lease", "1s"], "lease_duration"),
        (["create", "render", "--parameters", "{"], "not JSON"),
        (["create", "render", "--parameters", "[" * 100_000], "not JSON"),
        (["create", "render", "--parameters", "[1]"], "not a JSON object"),
        (["create", "render", "--parameters", "@/does/not/exist"], "No such file"),
        (["create", "render", "--parameters", '{"n": 9007199254740993}'], "parameters.n"),
    ],
)
def test_wrong_usage_is_2_and_says_how(jobledger, arguments, words):
    assert_refused(jobledger(*arguments), 2, words)


def test_a_missing_user_is_2_and_says_how_to_give_one(jobledger):
    del jobledger.environment["JOBLEDGER_USER"]
    for command in (["list"], ["watch", "--all"], ["top", "--once"]):
        assert_refused(jobledger(*command), 2, "JOBLEDGER_USER")


def test_options_go_before_the_environment(jobledger, client):
    job = client.create_job("render")
    jobledger.environment |= {"JOBLEDGER_SERVER": "127.0.0.1:1", "JOBLEDGER_USER": "nobody"}
    jobledger.ok("--server", jobledger.target, "--user", jobledger.user, "get", job.id)


@pytest.mark.parametrize(
    "command",
    [["list"], ["watch", "x"], ["create", "render"], ["watch", "--all"], ["top", "--once"]],
)
def test_an_unreachable_server_is_6(shell, command):
    assert_refused(shell("127.0.0.1:1", "ada")(*command), 6, "127.0.0.1:1")


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


def test_an_answer_of_nobody_we_know_is_70(shell):
    def answer(request, context):
        raise RuntimeError("boom")

    with fake_server(answer) as target:
        assert_refused(shell(target, "ada")("get", "x"), 70, "boom")


@pytest.mark.parametrize(
    ("missing", "drawing"), [("click", ""), ("rich", "_bars.Bars"), ("rich", "draw")]
)
def test_without_its_extra_it_says_what_to_install(missing, drawing):
    # None in sys.modules is how Python spells "not installed". rich is asked for
    # when it is to draw.
    program = f"""
import sys
sys.modules[{missing!r}] = None
if {missing!r} == "rich":
    from jobledger_client import _bars, _commands
    def draw():
        from jobledger_client import _top
    _commands.jobledger.main = lambda **_: {drawing}()
from jobledger_client.cli import main
main()
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert_refused(run, 2, "install 'jobledger[cli]'")
