"""Certificates of the gateway and of the service: read again when they change, and at SIGHUP."""

import asyncio
import signal
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest

from jobledger_gateway.followed_files import FollowedFiles
from tests.support.authority import Authority, der, served
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Http
from tests.support.ports import free_port
from tests.support.scraping import scraped
from tests.support.server_process import ServerProcess


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await met():
            await asyncio.sleep(0.05)


async def test_a_new_certificate_is_used_from_the_next_connection_on(
    server: ServerProcess, tmp_path: Path, authority: Authority
) -> None:
    first, second = authority.server(), authority.server()
    cert, key = first.write(tmp_path, "own")
    pair = ("--tls-cert", str(cert), "--tls-key", str(key))
    with GatewayProcess(server.target, pair) as gateway:
        assert await served(gateway.target) == der(first)

        async def is_renewed() -> bool:
            return await served(gateway.target) == der(second)

        second.write(tmp_path, "own")
        await until(is_renewed)
        key.write_bytes(first.key)
        gateway.signal(signal.SIGHUP)  # what cannot be used changes nothing, and ends nothing
        roots = tmp_path / "roots.pem"
        roots.write_bytes(authority.certificate)
        context = ssl.create_default_context(cafile=roots)
        context.check_hostname = False
        with urlopen(f"{gateway.url}/healthz", context=context) as answer:
            assert answer.status == 200
        assert await is_renewed()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0


async def test_another_authority_of_the_service_is_trusted_once_it_is_in_the_file(
    tmp_path: Path, authority: Authority
) -> None:
    new, roots = Authority(), tmp_path / "roots.pem"
    roots.write_bytes(authority.certificate)
    both = authority.certificate + new.certificate
    cert, key = authority.server().write(tmp_path, "server")
    arguments = ("--tls-cert", str(cert), "--tls-key", str(key))
    credentials = grpc.ssl_channel_credentials(both)
    server = ServerProcess(tmp_path, arguments=arguments, credentials=credentials)
    async with server:
        with GatewayProcess(server.target, ["--ca-file", str(roots)]) as gateway:
            http = Http(int(gateway.target.rpartition(":")[2]))

            async def is_ready() -> bool:
                return (await http.get("/readyz")).status == 200

            async def is_unready() -> bool:
                return not await is_ready()

            await until(is_ready)
            async with http.events("/v1/events?user_id=ada") as events:
                assert (await events.news()).data == {"synced": True}
                await asyncio.to_thread(server.kill)
                new.server().write(tmp_path, "server")
                await asyncio.to_thread(server.start)
                while (event := await events.news()).name != "upstream":
                    pass
                assert event.data == {"connected": False}
                await until(is_unready)
                roots.write_bytes(new.certificate)
                await until(is_ready)
                assert (await events.news()).data == {"connected": True}


async def test_metrics_say_when_certificates_expire_and_which_cannot_be_used(
    server: ServerProcess, tmp_path: Path, authority: Authority
) -> None:
    address = f"127.0.0.1:{free_port()}"
    pair = authority.server()
    cert, key = pair.write(tmp_path, "own")
    cert.write_bytes(pair.certificate + Authority(days=900).certificate)
    roots = tmp_path / "roots.pem"
    roots.write_bytes(Authority(days=10).certificate + Authority(days=300).certificate)
    client_cert, client_key = authority.issue(common_name="gateway", days=40).write(tmp_path, "c")
    options = {
        "--metrics": address,
        "--tls-cert": cert,
        "--tls-key": key,
        "--ca-file": roots,
        "--cert": client_cert,
        "--key": client_key,
    }

    def days(figures: Mapping[str, float], name: str) -> int:
        series = f'jobledger_certificate_expiration_timestamp_seconds{{certificate="{name}"}}'
        return round((figures[series] - time.time()) / 86400)

    def failing(figures: Mapping[str, float], name: str) -> float:
        return figures[f'jobledger_reloads_failing{{of="{name}"}}']

    arguments = [str(each) for pair in options.items() for each in pair]
    with GatewayProcess(server.target, arguments) as gateway:
        figures = await scraped(address)
        assert {name: days(figures, name) for name in ("server", "client", "service_ca")} == {
            "server": 30,
            "client": 40,
            "service_ca": 300,
        }
        assert failing(figures, "certificate") == failing(figures, "service_credentials") == 0
        good = key.read_bytes()
        key.write_bytes(authority.server().key)
        client_cert.write_bytes(b"nothing")

        async def both_fail() -> bool:
            figures = await scraped(address)
            return failing(figures, "certificate") == failing(figures, "service_credentials") == 1

        await until(both_fail)
        assert days(await scraped(address), "client") == 40  # it stays in use
        key.write_bytes(good)
        authority.issue(common_name="gateway", days=80).write(tmp_path, "c")

        async def both_renewed() -> bool:
            figures = await scraped(address)
            return failing(figures, "certificate") == failing(figures, "service_credentials") == 0

        await until(both_renewed)
        assert days(await scraped(address), "client") == 80
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0


def test_files_are_used_once_they_no_longer_change_or_when_asked(tmp_path: Path) -> None:
    file, used = tmp_path / "file", []
    file.write_text("one")
    files = FollowedFiles("files", [file], lambda: used.append(file.read_text()))
    files.check(asked=False)
    assert used == []
    file.write_text("second")
    files.check(asked=False)
    assert used == []
    files.check(asked=False)
    files.check(asked=False)
    assert used == ["second"]
    files.check(asked=True)
    assert used == ["second", "second"]
