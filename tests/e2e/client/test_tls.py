"""TLS and tokens, against a server with a certificate of its own."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from jobledger_client import AsyncClient, Client, Unavailable

# For localhost, until 2126, and of no use elsewhere. Made with
# openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500
#   -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1
KEY = b"""\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg86tlNmkjgtwGo+D7
/keEcoGtj9YXIxDixRaJxSHWuNahRANCAARonaAIODmXFtK3ebp8Tm0TUNTRQc11
M3yUYsmr3x+3DlmIxskoebqA53epuDmmQgJGR4fUX357yCEmoCrNja8A
-----END PRIVATE KEY-----
"""
CERTIFICATE = b"""\
-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUM2wXR5uc41QOBLG06tqdIYCgFyYwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNDE1MDU0OVoYDzIxMjYxMDMx
MTUwNTQ5WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARonaAIODmXFtK3ebp8Tm0TUNTRQc11M3yUYsmr3x+3DlmIxskoebqA
53epuDmmQgJGR4fUX357yCEmoCrNja8Ao28wbTAdBgNVHQ4EFgQUE8K5E31syIpG
XdmmEF/OUbqSaowwHwYDVR0jBBgwFoAUE8K5E31syIpGXdmmEF/OUbqSaowwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSQAwRgIhAPjy6pOFmClhB63c9vcJu0abI5vdHELzHsQWJLR591HoAiEA
rSoVydvRGbSELyvMZnNmffDG0nXM6k4Fhw0hsiGMJRk=
-----END CERTIFICATE-----
"""


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
    credentials = grpc.ssl_server_credentials([(KEY, CERTIFICATE)])
    handler.target = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
    server.start()
    yield handler
    server.stop(0).wait()


def test_the_client_speaks_tls_and_shows_its_token(doorman):
    credentials = grpc.ssl_channel_credentials(CERTIFICATE)
    with Client(doorman.target, user_id="ada", credentials=credentials, token="t") as client:
        client.get_job("j")
    assert doorman.shown == ["Bearer t"]


async def test_the_async_client_speaks_tls_and_shows_its_token(doorman):
    credentials = grpc.ssl_channel_credentials(CERTIFICATE)
    async with AsyncClient(
        doorman.target, user_id="ada", credentials=credentials, token="t"
    ) as client:
        await client.get_job("j")
    assert doorman.shown == ["Bearer t"]


def test_a_server_that_nobody_vouches_for_is_not_spoken_to(doorman):
    credentials = grpc.ssl_channel_credentials()
    with (
        Client(doorman.target, user_id="ada", credentials=credentials, token="t") as client,
        pytest.raises(Unavailable),
    ):
        client.get_job("j")
    assert doorman.shown == []


def test_the_command_line_speaks_tls_and_shows_its_token(doorman, tmp_path):
    roots = tmp_path / "roots.pem"
    roots.write_bytes(CERTIFICATE)
    run = subprocess.run(
        [Path(sys.executable).with_name("jobledger"), "--tls", "get", "j"],
        env={
            "JOBLEDGER_SERVER": doorman.target,
            "JOBLEDGER_USER": "ada",
            "JOBLEDGER_TOKEN": "t",
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert doorman.shown == ["Bearer t"]
