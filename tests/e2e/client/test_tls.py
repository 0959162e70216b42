"""TLS and tokens, against a server with a certificate of its own."""

import os
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from jobledger import Client, DeadlineExceeded, Unavailable
from tests.support import forked
from tests.support.certificates import LOCALHOST_CERTIFICATE, LOCALHOST_KEY
from tests.support.ports import free_port


class Doorman(grpc.GenericRpcHandler):
    """Answers every call with nothing in it and remembers what it was shown."""

    def __init__(self):
        self.shown = []

    def service(self, details):
        self.shown.append(dict(details.invocation_metadata).get("authorization"))
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")


@pytest.fixture
def doorman():
    server = grpc.server(ThreadPoolExecutor(2))
    handler = Doorman()
    server.add_generic_rpc_handlers([handler])
    credentials = grpc.ssl_server_credentials([(LOCALHOST_KEY, LOCALHOST_CERTIFICATE)])
    handler.target = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
    server.start()
    yield handler
    server.stop(0).wait()


def test_the_client_speaks_tls_and_shows_its_token(doorman):
    credentials = grpc.ssl_channel_credentials(LOCALHOST_CERTIFICATE)
    with Client(doorman.target, user_id="ada", credentials=credentials, token="t") as client:
        client.get_job("j")
    assert doorman.shown == ["Bearer t"]


def servers_of(target):
    """Return a list of two servers, of which the first one does not listen."""
    return f"ipv4:127.0.0.1:{free_port()},127.0.0.1:{target.rpartition(':')[2]}"


def test_a_list_of_servers_is_verified_by_the_name_that_is_given(doorman):
    servers = servers_of(doorman.target)
    credentials = grpc.ssl_channel_credentials(LOCALHOST_CERTIFICATE)
    options = {"user_id": "ada", "credentials": credentials, "timeout": 1}
    for name in (None, "elsewhere"):
        with (
            Client(servers, tls_server_name=name, **options) as client,
            pytest.raises((Unavailable, DeadlineExceeded)),
        ):
            client.get_job("j")
    with Client(servers, tls_server_name="localhost", **options) as client:
        client.get_job("j")


def test_a_server_name_without_tls_is_refused():
    with pytest.raises(ValueError, match="tls_server_name: needs tls or credentials"):
        Client("localhost:1", user_id="ada", tls_server_name="localhost")


def test_the_command_line_takes_the_name_of_a_list_of_servers(doorman, tmp_path):
    roots = tmp_path / "roots.pem"
    roots.write_bytes(LOCALHOST_CERTIFICATE)
    given = ("--server", servers_of(doorman.target), "--user", "ada", "--ca-file", str(roots))
    name = ("--tls-server-name", "localhost")
    answered = forked.run("jobledger", *given, *name, "get", "j", env=os.environ)
    assert answered.returncode == 0, answered.stderr
    healthy = forked.run("jobledger", *given, *name, "health", env=os.environ)
    assert healthy.stdout == "UNKNOWN\n"  # what the empty answer says
    plain = forked.run("jobledger", *name, "--no-tls", "get", "j", env=os.environ)
    assert "needs TLS" in plain.stderr


def not_connected(target, credentials=None):
    """Return what a client says that cannot connect."""
    with (
        Client(target, user_id="ada", credentials=credentials) as client,
        pytest.raises(Unavailable, match=f"cannot connect to {target}: ") as failed,
    ):
        next(client.watch_jobs(connect_timeout=0.0))
    return str(failed.value)


def test_without_tls_the_error_names_tls_as_a_possible_cause(doorman):
    assert not_connected(doorman.target).endswith("(check that both sides use TLS or neither does)")


def test_with_tls_the_error_names_a_server_without_tls_as_a_possible_cause(own_server):
    words = not_connected(own_server.target, grpc.ssl_channel_credentials())
    assert words.endswith("(check that both sides use TLS or neither does)")


def test_without_a_server_the_error_does_not_name_tls():
    assert not_connected(f"127.0.0.1:{free_port()}").endswith("Connection refused")
