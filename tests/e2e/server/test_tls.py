"""TLS and mutual TLS, with real certificates over real connections."""

import asyncio
import json
import logging
import os
import ssl
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from jobledger import AsyncClient, Client
from jobledger_server.app import App
from jobledger_server.runtime import tls
from jobledger_server.runtime.tls import BadCertificate, TlsFiles, tls_files
from jobledger_server.settings import Settings
from tests.support import forked
from tests.support.authority import Authority, Pair, der, served
from tests.support.rpc_caller import OWN_CONNECTION, Caller
from tests.support.server_process import ServerProcess, run_server


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> TlsFiles:
    """The files of a server that requires certificates of its clients."""
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(authority.certificate)
    return TlsFiles(*authority.server().write(tmp_path, "server"), client_ca)


Serve = Callable[[TlsFiles], Awaitable[App]]


@pytest.fixture
def serve(start: Callable[..., Awaitable[App]]) -> Serve:
    return lambda files: start(
        tls_cert=files.cert, tls_key=files.key, tls_client_ca=files.client_ca
    )


def channel(app: App, authority: Authority, own: Pair | None = None) -> grpc.aio.Channel:
    shown = () if own is None else (own.key, own.certificate)
    credentials = grpc.ssl_channel_credentials(authority.certificate, *shown)
    return grpc.aio.secure_channel(app.address, credentials, OWN_CONNECTION)


async def code_of(call: Awaitable[Any]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_both_clients_and_the_command_line_speak_tls(
    serve: Serve, tmp_path: Path, authority: Authority, files: TlsFiles
) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.certificate)
    credentials = grpc.ssl_channel_credentials(authority.certificate)
    plain = TlsFiles(files.cert, files.key)
    app = await serve(plain)
    async with AsyncClient(app.address, user_id="ada", credentials=credentials) as client:
        job = await client.create_job("render")

    def blocking() -> str:
        with Client(app.address, user_id="ada", credentials=credentials) as client:
            return client.get_job(job.id).id

    assert await asyncio.to_thread(blocking) == job.id
    options = ("--server", app.address, "--user", "ada", "--ca-file", str(roots))
    run = await asyncio.to_thread(forked.run, "jobledger", *options, "get", job.id, env=os.environ)
    assert run.returncode == 0, run.stderr
    async with grpc.aio.insecure_channel(app.address, OWN_CONNECTION) as unencrypted:
        refused = Caller(unencrypted, timeout=2).GetJob(job_id=job.id, user_id="ada")
        assert await code_of(refused) is grpc.StatusCode.UNAVAILABLE


async def test_where_clients_need_a_certificate_no_other_client_can_call(
    serve: Serve, authority: Authority, files: TlsFiles
) -> None:
    clients = {
        "good": (authority.issue(common_name="ada"), grpc.StatusCode.OK),
        "none": (None, grpc.StatusCode.UNAVAILABLE),
        "another CA's": (Authority().issue(common_name="ada"), grpc.StatusCode.UNAVAILABLE),
        "expired": (authority.issue(common_name="ada", days=-1), grpc.StatusCode.UNAVAILABLE),
    }
    app = await serve(files)
    for name, (own, code) in clients.items():
        async with channel(app, authority, own) as connected:
            assert (name, await code_of(Caller(connected, timeout=5).job())) == (name, code)


async def test_new_files_are_used_from_the_next_connection_on_and_end_nothing(
    serve: Serve, tmp_path: Path, authority: Authority
) -> None:
    first, second = authority.server(), authority.server()
    files = TlsFiles(*first.write(tmp_path, "server"))
    app = await serve(files)
    async with channel(app, authority) as connected:
        call = Caller(connected)
        job = await call.job()
        watch = call.WatchJob(job_id=job.id, user_id="ada")
        await watch.read()
        assert await served(app.address) == der(first)
        second.write(tmp_path, "server")
        assert await served(app.address) == der(second)
        await call.CancelJob(job_id=job.id, user_id="ada")
        assert (await watch.read()).job.error.reason == "CANCELLED"
        assert await watch.read() is grpc.aio.EOF


async def test_files_that_cannot_be_used_are_logged_once_and_the_certificate_stays(
    serve: Serve,
    tmp_path: Path,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls, "SETTLE_SECONDS", 0.0)
    good = authority.server()
    files = TlsFiles(*good.write(tmp_path, "server"))
    breaks: dict[str, Callable[[], object]] = {
        "has expired": lambda: authority.server(days=-1).write(tmp_path, "server"),
        "is not the key": lambda: files.key.write_bytes(authority.server().key),
        "No such file": files.cert.unlink,
    }
    app = await serve(files)
    for words, spoil in breaks.items():
        with caplog.at_level(logging.ERROR):
            caplog.clear()
            spoil()
            for _ in range(3):
                assert await served(app.address) == der(good)
        (record,) = caplog.records
        assert record.message == "certificate_unusable"
        assert words in vars(record)["cause"]
        assert "PRIVATE" not in vars(record)["cause"]
        good = authority.server()
        good.write(tmp_path, "server")
        assert await served(app.address) == der(good)


async def test_a_certificate_that_is_not_valid_yet_is_used_once_it_is(
    serve: Serve, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "SETTLE_SECONDS", 0.0)
    files = TlsFiles(*authority.server().write(tmp_path, "server"))
    app = await serve(files)
    async with asyncio.timeout(30):
        early = authority.server(starts_in=timedelta(seconds=3))
        early.write(tmp_path, "server")
        while await served(app.address) != der(early):
            await asyncio.sleep(0.1)


def spoilt(kind: str, folder: Path, authority: Authority) -> TlsFiles:
    cert, key = authority.server().write(folder, "server")
    client_ca = folder / "clients.pem"
    client_ca.write_bytes(authority.certificate)
    match kind:
        case "no certificate":
            cert.unlink()
        case "no key":
            key.unlink()
        case "swapped":
            cert, key = key, cert
        case "not PEM":
            cert.write_bytes(b"\x30\x82")
        case "another key":
            key.write_bytes(authority.server().key)
        case "expired":
            authority.server(days=-1).write(folder, "server")
        case "of a client":
            authority.server(purpose=ExtendedKeyUsageOID.CLIENT_AUTH).write(folder, "server")
        case "not for connections":
            authority.server(signs=False).write(folder, "server")
        case "another version":
            version, fifth = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x04"
            pair = authority.server()
            pair.write(folder, "server")
            cert.write_text(ssl.DER_cert_to_PEM_cert(der(pair).replace(version, fifth, 1)))
        case "no CA":
            client_ca.unlink()
        case "empty CA":
            client_ca.write_bytes(b"")
        case "a CA that is none":
            client_ca.write_bytes(authority.server().certificate)
        case "expired CA":
            client_ca.write_bytes(Authority(days=-1).certificate)
    return TlsFiles(cert, key, client_ca)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no certificate", r"cannot read .*server\.pem: No such file"),
        ("no key", r"cannot read .*server\.key: No such file"),
        ("swapped", "are not a certificate and its key without a password, in PEM"),
        ("not PEM", "are not a certificate and its key without a password, in PEM"),
        ("another key", r"server\.key is not the key of the certificate .*server\.pem"),
        ("expired", r"server\.pem has expired"),
        ("of a client", r"server\.pem is not for a server"),
        ("not for connections", r"server\.pem is not for a server"),
        ("another version", r"server\.pem cannot be used: .* not a valid X509 version"),
        ("no CA", r"cannot read .*clients\.pem"),
        ("empty CA", r"clients\.pem has no certificates in PEM"),
        ("a CA that is none", r"clients\.pem has no certificate of a CA"),
        ("expired CA", r"clients\.pem have expired"),
    ],
)
def test_a_file_that_cannot_be_used_at_the_start_is_an_error_that_names_it(
    tmp_path: Path, authority: Authority, kind: str, words: str
) -> None:
    with pytest.raises(BadCertificate, match=words):
        spoilt(kind, tmp_path, authority).read()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tls_cert": Path("a")}, "--tls-cert and --tls-key go together"),
        ({"tls_key": Path("a")}, "--tls-cert and --tls-key go together"),
        ({"tls_client_ca": Path("a")}, "--tls-client-ca needs --tls-cert and --tls-key"),
    ],
)
def test_files_that_do_not_make_tls_are_refused(given: dict[str, Path], words: str) -> None:
    with pytest.raises(BadCertificate, match=words):
        tls_files(Settings(**given))


def test_the_server_does_not_start_without_its_certificate(tmp_path: Path) -> None:
    files = ("--tls-cert", "nowhere.pem", "--tls-key", "nowhere.key")
    run = run_server("serve", "--listen", "127.0.0.1:0", *files, cwd=tmp_path)
    error = "Error: cannot read nowhere.pem: No such file or directory\n"
    assert (run.returncode, run.stderr) == (1, error)


def test_off_loopback_the_server_needs_tls_or_the_insecure_option(tmp_path: Path) -> None:
    run = run_server("serve", "--listen", "0.0.0.0:0", cwd=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("Error: 0.0.0.0:0 can be reached from other machines")
    for option in ("--tls-cert", "--tls-key", "--tls-client-ca", "--insecure"):
        assert option in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "listen",
    [
        *(
            "0.0.0.0:1",
            "[::]:1",
            "10.0.0.1:1",
            ":1",
            "0:1",
            "host.example:1",
            "[::ffff:10.0.0.1]:1",
        ),
        # Names that begin like an address of this machine, but are other hosts.
        *("127.example.org:1", "127.0.0.1.example.org:1"),
    ],
)
def test_tls_or_insecure_allow_a_server_off_loopback(listen: str) -> None:
    assert Settings(listen=listen).unprotected
    # Its callers' tokens would be readable on the way.
    assert Settings(listen=listen, access=Path("a")).unprotected
    for protected in ({"tls_cert": Path("a")}, {"insecure": True}):
        assert not Settings(listen=listen, **protected).unprotected


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "unix:a"]
)
def test_on_loopback_the_server_needs_no_protection(listen: str) -> None:
    assert not Settings(listen=listen).unprotected


def test_the_health_command_calls_the_server_of_the_same_settings(
    tmp_path: Path, authority: Authority, files: TlsFiles
) -> None:
    given = {
        "JOBLEDGER_TLS_CERT": str(files.cert),
        "JOBLEDGER_TLS_KEY": str(files.key),
        "JOBLEDGER_TLS_CLIENT_CA": str(files.client_ca),
    }
    own = authority.issue(common_name="test")
    credentials = grpc.ssl_channel_credentials(authority.certificate, own.key, own.certificate)
    with ServerProcess(tmp_path, environment=given, credentials=credentials) as server:
        port = server.target.rpartition(":")[2]
        # As in a container: it listens on every address, and the call comes from inside.
        # A proxy of the environment is for other machines.
        run = run_server(
            "health",
            JOBLEDGER_LISTEN=f"0.0.0.0:{port}",
            http_proxy="http://127.0.0.1:9",
            no_proxy="",
            **given,
        )
        assert (run.returncode, run.stdout) == (0, "SERVING\n"), run.stderr
        log = [json.loads(line) for line in server.log.read_text().splitlines()]
        assert [e["tls"] for e in log if e["event"] == "serving"] == [True]
    run = run_server("health", "--timeout", "1", JOBLEDGER_LISTEN=f"0.0.0.0:{port}", **given)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("Error: UNAVAILABLE")


def test_a_key_that_others_may_read_is_logged(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.server().write(tmp_path, "server")
    key.chmod(0o644)
    credentials = grpc.ssl_channel_credentials(authority.certificate)
    arguments = ("--tls-cert", str(cert), "--tls-key", str(key))
    with ServerProcess(tmp_path, arguments=arguments, credentials=credentials) as server:
        log = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert [e["file"] for e in log if e["event"] == "file_readable_by_others"] == [str(key)]
