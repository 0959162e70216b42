"""The command `jobledger-gateway`."""

import json
import os
import signal
import socket
import ssl
import subprocess
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest

from jobledger_gateway.serving import PROBE_SECONDS, bind
from tests.support import forked
from tests.support.access_file import rule, write_access_file
from tests.support.certificates import LOCALHOST_CERTIFICATE, LOCALHOST_KEY
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Http
from tests.support.server_process import ServerProcess


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run("jobledger-gateway", *arguments, env=os.environ)


async def test_sigterm_ends_the_streams_and_the_process(server: ServerProcess) -> None:
    with GatewayProcess(server.target) as gateway:
        http = Http(int(gateway.url.rpartition(":")[2]))
        async with http.events("/v1/events?user_id=process") as events:
            assert (await events.news()).data == {"synced": True}
            gateway.signal(signal.SIGTERM)
            while await events.event() is not None:
                pass
        assert gateway.wait() == 0


def test_both_its_connections_can_be_encrypted(tmp_path: Path) -> None:
    cert, key, token = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "token"
    cert.write_bytes(LOCALHOST_CERTIFICATE)
    key.write_bytes(LOCALHOST_KEY)
    token.write_text("a-token")
    pair = ("--tls-cert", str(cert), "--tls-key", str(key))
    access = tmp_path / "access.toml"
    write_access_file(access, rule("a", 'roles = ["owner"]\nusers = ["ada"]', "a-token"))
    trust = grpc.ssl_channel_credentials(LOCALHOST_CERTIFICATE)
    arguments = (*pair, "--access", str(access))
    own = ("--ca-file", str(cert), "--token-file", str(token))
    with (
        ServerProcess(tmp_path, arguments=arguments, credentials=trust) as server,
        GatewayProcess(server.target, [*own, *pair]) as gateway,
    ):
        context = ssl.create_default_context(cafile=cert)
        with urlopen(f"{gateway.url}/v1/jobs?user_id=ada", context=context) as answer:
            assert json.load(answer) == {}
        targets = f"ipv4:127.0.0.1:1,{server.target}"
        name = ("--tls-server-name", "localhost")
        with (
            GatewayProcess(targets, [*own, *name]) as named,
            urlopen(f"{named.url}/v1/jobs?user_id=ada") as answer,
        ):
            assert json.load(answer) == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "http://127.0.0.1:50051"], "is a URL; give HOST:PORT"),
        (["--listen", "127.0.0.1"], "is not HOST:PORT"),
        (["--listen", "127.0.0.1:80000"], "0 to 65535"),
        (["--listen", "0.0.0.0:0"], "--insecure"),
        (["--listen", "192.0.2.1:0"], "cannot serve at 192.0.2.1:0"),
        (["--cors-origin", "app.example"], "is not an origin"),
        (["--cors-origin", "https://app.example/"], "is not an origin"),
        (["--cors-origin", "*"], "is not an origin"),
        (["--proxy", "nginx"], "does not appear to be an IPv4 or IPv6 network"),
        (["--tls-cert", "a.pem"], "give both"),
        (["--tls-cert", "a.pem", "--tls-key", "b.pem"], "No such file"),
        (["--token-file", "nothing"], "nothing"),
        (["--no-tls", "--ca-file", "a.pem"], "needs TLS"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(arguments: list[str], words: str) -> None:
    ended = run(*arguments)
    assert ended.returncode in {1, 2}
    assert words in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_said_to_be(server: ServerProcess) -> None:
    ended = run("--listen", server.target)
    assert (ended.returncode, "in use" in ended.stderr) == (1, True)


def test_the_kernel_asks_a_silent_client_whether_it_is_still_there() -> None:
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    assert idle == PROBE_SECONDS
