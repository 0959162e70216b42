"""A client by the environment, and TLS by the system's CA certificates."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import grpc
import pytest

from jobledger import AsyncClient, Client, DeadlineExceeded, Unavailable
from jobledger.cli.options import Command
from jobledger.core.connection_options import PREFIX, from_environment
from jobledger.core.system_roots import system_roots
from tests.e2e.client.conftest import Flaky
from tests.e2e.client.test_tls import doorman, servers_of
from tests.support.certificates import LOCALHOST_CERTIFICATE

__all__ = ["doorman"]

Set = Callable[..., None]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Set variables of the client by their names; none other is set."""
    for name in ("server", "user", "token", "token_file", "tls", "ca_file", "timeout"):
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)

    def set_(**given: str) -> None:
        for name, value in given.items():
            monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)

    return set_


@pytest.fixture(autouse=True)
def no_other_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def roots(tmp_path: Path) -> str:
    file = tmp_path / "roots.pem"
    file.write_bytes(LOCALHOST_CERTIFICATE)
    return str(file)


async def test_both_clients_are_made_by_the_environment(
    variables: Set, flaky: Flaky, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret\n")
    variables(server=flaky.target, user="ada", token_file=str(tmp_path / "token"))
    with Client.from_env() as client:
        client.get_job("j")
    async with AsyncClient.from_env(user_id="bob") as asynchronous:
        await asynchronous.get_job("j")
    assert [seen["authorization"] for seen in flaky.metadata] == ["Bearer secret"] * 2
    assert [b"ada" in request for request in flaky.requests] == [True, False]
    assert b"bob" in flaky.requests[1]


def test_an_environment_that_says_nothing_means_the_defaults(variables: Set) -> None:
    variables(user="", tls="")
    found = from_environment({})
    assert (found.server, found.user, found.token) == ("127.0.0.1:50051", None, None)
    assert (found.credentials, found.timeout) == (None, 10.0)


def test_the_variables_are_those_of_the_command_line() -> None:
    shown = {
        each.envvar
        for each in Command("any").params
        if isinstance(each, click.Option) and each.name != "profile"
    }
    documented = {word.strip(",.") for word in (Client.from_env.__doc__ or "").split()}
    assert {word for word in documented if word.startswith(PREFIX)} == shown


def test_tls_of_the_environment_verifies_by_the_given_certificates(
    variables: Set, roots: str, doorman: Any
) -> None:
    servers = servers_of(doorman.target)
    variables(server=servers, user="ada", ca_file=roots, tls_server_name="localhost", token="t")
    with Client.from_env() as client:
        client.get_job("j")
    assert doorman.shown == ["Bearer t"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tls": "maybe"}, "JOBLEDGER_TLS: 'maybe'"),
        ({"timeout": "soon"}, "JOBLEDGER_TIMEOUT: 'soon'"),
        ({"timeout": "-1"}, "JOBLEDGER_TIMEOUT: '-1'"),
        ({"token": "a", "token_file": "b"}, "not both"),
        ({"token_file": "/nowhere"}, "token file"),
        ({"cert": "/nowhere"}, "go together"),
        ({"tls": "no", "ca_file": "a"}, "needs TLS"),
        ({"ca_file": "/nowhere"}, "/nowhere"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(
    variables: Set, given: dict[str, str], said: str
) -> None:
    variables(**given)
    with pytest.raises(ValueError, match=said):
        Client.from_env()


async def test_tls_trusts_the_certificates_of_the_system(
    monkeypatch: pytest.MonkeyPatch, roots: str, doorman: Any
) -> None:
    with (
        Client(doorman.target, user_id="ada", tls=True, timeout=3) as client,
        pytest.raises((Unavailable, DeadlineExceeded)),
    ):
        client.get_job("j")  # nobody that the system trusts has signed it
    monkeypatch.setenv("SSL_CERT_FILE", roots)
    with Client(doorman.target, user_id="ada", tls=True, token="t") as client:
        client.get_job("j")
    async with AsyncClient(doorman.target, user_id="ada", tls=True, token="t") as asynchronous:
        await asynchronous.get_job("j")
    assert doorman.shown == ["Bearer t"] * 2


def test_the_certificates_of_a_folder_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "0123abcd.0").write_bytes(LOCALHOST_CERTIFICATE)
    (tmp_path / "README").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert system_roots() == LOCALHOST_CERTIFICATE
    (tmp_path / "0123abcd.0").unlink()
    assert system_roots() is None
    assert ssl.get_default_verify_paths().capath == str(tmp_path)


def test_tls_does_not_go_with_credentials_or_a_channel() -> None:
    with pytest.raises(ValueError, match=r"^tls: does not go with"):
        Client("localhost:1", tls=True, credentials=grpc.ssl_channel_credentials())
    with (
        grpc.insecure_channel("localhost:1") as channel,
        pytest.raises(ValueError, match=r"^tls: does not go with"),
    ):
        Client("localhost:1", tls=True, channel=channel)
