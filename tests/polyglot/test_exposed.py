"""Attacks on a server that has Envoy in front, with the limits that deploy/envoy.yaml has."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import grpc
import pytest

from jobledger.v1 import job_service_pb2
from tests.polyglot.envoy import running_envoy
from tests.robustness.abuse import http2_attacks as attacks
from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.good_client import LONGEST_P99, good_client, served_alone
from tests.robustness.abuse.test_floods import creations_from_elsewhere
from tests.robustness.abuse.unidentified import TOKEN, batches, server_with_access
from tests.support.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GET_JOB,
    HEADERS,
    Connection,
    frame,
    request_headers,
)
from tests.support.rpc_caller import OWN_CONNECTION, Caller
from tests.support.server_process import MIB, ServerProcess

FASTER_THAN_ENVOY = 3_000_000
"""Frames a second: a slower sender can read the answers as fast as they come, and is let be."""


@pytest.fixture
def exposed(tmp_path: Path) -> Iterator[tuple[ServerProcess, str]]:
    """Return a server, and the address of Envoy in front of it."""
    with (
        ServerProcess(tmp_path) as server,
        running_envoy(server, tmp_path) as envoy,
    ):
        yield server, envoy


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[tuple[ServerProcess, str]]:
    """Return a server with an access file, and the address of Envoy in front of it."""
    with (
        server_with_access(tmp_path) as server,
        running_envoy(server, tmp_path) as envoy,
    ):
        yield server, envoy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack_with", "options", "closes"),
    [
        (attacks.rapid_reset, {}, True),
        (attacks.rapid_reset, {"connections": 10, "rate": 20_000}, True),
        (attacks.open_calls, {}, False),
        (attacks.hpack_bomb, {}, True),
        (attacks.large_headers, {}, True),
        (attacks.settings_flood, {"rate": FASTER_THAN_ENVOY}, True),
        (attacks.ping_flood, {"rate": FASTER_THAN_ENVOY}, True),
        (attacks.continuation_flood, {}, True),
    ],
)
async def test_floods_fail_no_call_of_others(
    exposed: tuple[ServerProcess, str],
    attack_with: Callable[..., object],
    options: dict[str, object],
    *,
    closes: bool,
) -> None:
    server, envoy = exposed
    async with attack(attack_with, envoy, **options) as attacker:
        await attacker.begun()
        async with good_client(envoy) as good:
            await asyncio.sleep(2)
        report = await attacker.report()
    assert good.failed == []
    assert good.p50 < LONGEST_P99, good
    assert report["closed"] > 0 or not closes, report
    assert server.peak_memory < 200 * MIB


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack_with", "options"),
    [
        (attacks.hpack_bomb, {"connections": 10}),
        (attacks.hpack_bomb, {"connections": 10, "repeats": 16_000}),
        (attacks.settings_flood, {"connections": 10, "rate": FASTER_THAN_ENVOY}),
        (attacks.cut_calls, {}),
        (batches, {"count": 200}),
    ],
)
async def test_floods_without_credentials_do_not_slow_down_others(
    closed: tuple[ServerProcess, str],
    attack_with: Callable[..., object],
    options: dict[str, object],
) -> None:
    server, envoy = closed
    alone = await served_alone(envoy, token=TOKEN)
    async with attack(attack_with, envoy, **options) as attacker:
        await attacker.begun()
        async with good_client(envoy, token=TOKEN) as good:
            await asyncio.sleep(4)
        await attacker.report()
    good.assert_served(alone)
    assert server.peak_memory < 250 * MIB


async def test_large_requests_without_a_token_do_not_reach_the_server(
    exposed: tuple[ServerProcess, str],
) -> None:
    _, envoy = exposed
    async with grpc.aio.insecure_channel(envoy) as channel:
        small, large = ({"text": "x" * size} for size in (60_000, 70_000))
        assert (await Caller(channel).job(parameters=small)).id
        with pytest.raises(grpc.aio.AioRpcError, match="Payload Too Large"):
            await Caller(channel).job(parameters=large)
        assert (await Caller(channel, token="any").job(parameters=large)).id


@pytest.mark.slow
async def test_large_creations_of_one_address_delay_no_other(
    exposed: tuple[ServerProcess, str],
) -> None:
    _, envoy = exposed
    async with attack(creations_from_elsewhere, envoy, what="creations") as attacker:
        await attacker.begun()
        async with good_client(envoy) as good:
            codes = await attacker.report()
    assert good.failed == []
    assert good.p50_of_creations < LONGEST_P99, good
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED"}, codes


MALFORMED = (b"/\xff", GET_JOB + b"\xff", GET_JOB + b"/more", GET_JOB + b"%2f", b"")


async def test_malformed_paths_do_not_reach_the_server(exposed: tuple[ServerProcess, str]) -> None:
    server, envoy = exposed
    server.signal(signal.SIGSTOP)  # so it is Envoy that answers
    for path in MALFORMED:
        with Connection(envoy) as attacker:
            headers = request_headers(path)
            attacker.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, headers))
            async with asyncio.timeout(3):
                while 1 not in attacker.answered and not attacker.closed.is_set():
                    await asyncio.sleep(0.01)
    server.signal(signal.SIGCONT)
    await served_alone(envoy, 0.2)


async def test_names_that_are_not_listed_are_refused(exposed: tuple[ServerProcess, str]) -> None:
    """A stranger's page may give its own name the address of Envoy (DNS rebinding)."""
    _, envoy = exposed
    port = envoy.rpartition(":")[2]

    def status(host: str) -> int:
        connection = HTTPConnection(envoy, timeout=10)
        headers = {"Host": host, "Content-Type": "application/grpc-web+proto"}
        with closing(connection):
            connection.request("POST", GET_JOB.decode(), bytes(5), headers)
            return connection.getresponse().status

    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert await asyncio.to_thread(status, host) == HTTPStatus.OK
        assert await asyncio.to_thread(status, f"{host}:{port}") == HTTPStatus.OK
    for host in ("page.example", f"page.example:{port}", "localhost.page.example", "x.localhost"):
        assert await asyncio.to_thread(status, host) == HTTPStatus.NOT_FOUND


NO_TABLE = b"\x20"
"""At the beginning of headers: their sender uses a table of no bytes (RFC 7541, 6.3)."""


async def test_a_request_that_is_sent_in_part_is_ended(exposed: tuple[ServerProcess, str]) -> None:
    _, envoy = exposed
    with Connection(envoy) as attacker:
        # Envoy keeps no table of headers, and the client has to say that it has taken note.
        headers = NO_TABLE + request_headers(GET_JOB)
        attacker.send(frame(HEADERS, END_HEADERS, 1, headers), frame(DATA, 0, 1, b"\0\0\1"))
        async with asyncio.timeout(15):
            while 1 not in attacker.answered:
                await asyncio.sleep(0.05)


async def test_concurrent_calls_of_an_address_are_limited(
    exposed: tuple[ServerProcess, str],
) -> None:
    """200, and 100 more a second, of those that are under way together on ten connections."""
    _, envoy = exposed
    async with AsyncExitStack() as channels:
        calls = []
        for _ in range(10):
            channel = grpc.aio.insecure_channel(envoy, OWN_CONNECTION)
            call = Caller(await channels.enter_async_context(channel))
            calls += [call.ListJobs(user_id="ada", page_size=1) for _ in range(100)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    codes = {error.code() for error in refused}
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}, {error.details() for error in refused}
    assert 200 <= len(answers) - len(refused) < len(calls)
    served = [a for a in answers if isinstance(a, job_service_pb2.ListJobsResponse)]
    assert len(served) + len(refused) == len(answers)


async def test_more_calls_than_a_connection_takes_fail_none(
    exposed: tuple[ServerProcess, str],
) -> None:
    """Envoy learns how many a new connection takes only when the server has answered on it."""
    server, envoy = exposed
    server.signal(signal.SIGSTOP)
    async with AsyncExitStack() as channels:
        calls = []
        for _ in range(6):
            channel = grpc.aio.insecure_channel(envoy, OWN_CONNECTION)
            call = Caller(await channels.enter_async_context(channel))
            calls += [asyncio.ensure_future(call.ListJobs(user_id="ada")) for _ in range(50)]
            await asyncio.sleep(0.5)  # an address has fifty more calls then
        server.signal(signal.SIGCONT)
        await asyncio.gather(*calls)
