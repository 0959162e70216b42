"""Certificates of the gateway and of the service: read again when they change, and at SIGHUP."""

import asyncio
import signal
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest

from jobledger_gateway.followed_files import FollowedFiles
from tests.support.authority import Authority, der, served
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Http
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


def test_files_are_used_once_they_no_longer_change_or_when_asked(tmp_path: Path) -> None:
    file, used = tmp_path / "file", []
    file.write_text("one")
    files = FollowedFiles([file], lambda: used.append(file.read_text()))
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
