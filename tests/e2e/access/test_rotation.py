"""Certificates, their CAs and the keys of tokens are renewed under load, and no call fails."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import grpc
import pytest

from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.app import App
from jobledger_server.rpc.access import issuers
from tests.support.access_file import write_access_file
from tests.support.authority import Authority, Pair, der, served
from tests.support.token_issuer import PEOPLE, SigningKey, key_server, key_set, write_key_set

FEW_ROTATIONS, ROTATIONS = 3, 100
CALLERS = 4
FETCH_SECONDS = 0.05
"""What the test has for MIN_REFRESH_SECONDS."""

POLICY = (
    PEOPLE
    + """
[[caller]]
name = "machines"
identity = "cn:machine"
roles = ["owner"]
users = ["ada"]
"""
)


@dataclass
class Load:
    """Callers that connect anew for each call, and some that stay connected."""

    address: str
    roots: bytes
    own: Pair
    key: SigningKey
    calls: int = 0
    failures: list[str] = field(default_factory=list)
    ended: dict[int, int] = field(default_factory=dict)
    """By caller: when the last of its rounds that has ended began."""
    rotation: int = 0

    async def run(self, caller: int) -> None:
        numbers = itertools.count()
        async with self._connected(self.own) as lasting:
            while True:
                begun, number = self.rotation, next(numbers)
                async with self._connected(self.own) as fresh:
                    # Each token is verified: none was seen before.
                    token = self.key.token(jti=f"{caller}-{number}")
                    await self._call(fresh, token)
                    await self._call(fresh, None)
                await self._call(lasting, self.key.token(jti=f"{caller}-{number}-lasting"))
                self.ended[caller] = begun

    def _connected(self, own: Pair) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.roots, own.key, own.certificate)
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(self.address, credentials, options)

    async def _call(self, channel: grpc.aio.Channel, token: str | None) -> None:
        metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        # Always the same job: a list could take longer than it may on a busy machine.
        request = jobs.CreateJobRequest(user_id="ada", job_type="render", request_id="one")
        try:
            await JobServiceStub(channel).CreateJob(request, metadata=metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            self.failures.append(f"{error.code()} {error.details()}")
        self.calls += 1

    async def rounds(self) -> None:
        """Wait until each caller has ended a round that began after the last rotation."""
        while any(self.ended.get(each, -1) < self.rotation for each in range(CALLERS)):
            await asyncio.sleep(0.001)


Start = Callable[..., Awaitable[App]]
Publish = Callable[[Sequence[SigningKey]], Awaitable[None]]
"""Publishes keys. Returns when tokens may be signed with them."""


@asynccontextmanager
async def keys_in_a_file(folder: Path) -> AsyncIterator[tuple[str, Publish]]:
    async def publish(keys: Sequence[SigningKey]) -> None:
        write_key_set(folder / "keys.json", keys)

    yield POLICY, publish


@asynccontextmanager
async def keys_at_a_url(folder: Path) -> AsyncIterator[tuple[str, Publish]]:
    """Publish keys at an https URL, and not more often than the server fetches new ones."""
    authority = Authority()
    (folder / "issuer.pem").write_bytes(authority.certificate)
    with (
        key_server(authority, folder) as served,
        # Else it takes ten minutes.
        mock.patch.object(issuers, "MIN_REFRESH_SECONDS", FETCH_SECONDS),
    ):

        async def publish(keys: Sequence[SigningKey]) -> None:
            # The last fetch has ended: callers used its keys.
            await asyncio.sleep(FETCH_SECONDS)
            served.content = key_set(keys)

        where = f'jwks_url = "{served.url}"\njwks_ca_file = "issuer.pem"'
        yield POLICY.replace('jwks_file = "keys.json"', where), publish
        # Each key was fetched when it was first used, and not once for each call.
        assert ROTATIONS <= served.requests <= ROTATIONS + 2


@pytest.mark.parametrize(
    ("published", "rotations"),
    [
        (keys_in_a_file, FEW_ROTATIONS),
        pytest.param(keys_in_a_file, ROTATIONS, marks=pytest.mark.slow),
        pytest.param(keys_at_a_url, ROTATIONS, marks=pytest.mark.slow),
    ],
)
async def test_certificates_and_keys_are_rotated_and_no_call_fails(
    published: Callable[[Path], AbstractAsyncContextManager[tuple[str, Publish]]],
    rotations: int,
    start: Start,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with published(tmp_path) as (policy, publish):
        load = await rotated(start, tmp_path, policy, publish, rotations)
    assert load.failures == []
    logged = {record.message for record in caplog.records}
    assert not logged & {"certificate_unusable", "issuer_keys_unavailable"}
    assert load.calls >= 3 * CALLERS * rotations


async def rotated(
    start: Start, folder: Path, policy: str, publish: Publish, rotations: int
) -> Load:
    """Serve, and rotate everything under load; return that."""
    servers = Authority()
    clients, key = Authority(), SigningKey("ES256", "key-0")
    cert, private = servers.server().write(folder, "server")
    client_ca = folder / "clients.pem"
    client_ca.write_bytes(clients.certificate)
    await publish([key])
    access = folder / "access.toml"
    write_access_file(access, policy)
    app = await start(access=access, tls_cert=cert, tls_key=private, tls_client_ca=client_ca)
    own = clients.issue(common_name="machine")
    load = Load(app.address, servers.certificate, own, key)
    running = [asyncio.create_task(load.run(caller)) for caller in range(CALLERS)]
    await load.rounds()  # the first keys have been fetched
    for number in range(1, rotations + 1):
        # The server knows the next key or CA before it is used, and keeps the old one until no
        # caller uses it.
        next_clients, next_key = Authority(), SigningKey("ES256", f"key-{number}")
        pair = servers.server()
        pair.write(folder, "server")
        new = folder / "clients.new"
        new.write_bytes(clients.certificate + next_clients.certificate)
        new.replace(client_ca)
        await publish([key, next_key])
        clients, key = next_clients, next_key
        load.own, load.key = clients.issue(common_name="machine"), key
        load.rotation = number
        assert await served(app.address) == der(pair)
        await load.rounds()
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    return load
