"""Attacks with HTTP/2 itself, before any call is understood.

docs/operate/exposure.md has what was measured. Where an attack takes the processor that others
need, none of their calls fails. How long they wait then is the machine's.
"""

import asyncio
from collections.abc import Callable

import pytest

from tests.robustness.abuse import http2_attacks as attacks
from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.good_client import LONGEST_P99, Good, good_client, served_alone
from tests.support.databases import sqlite_only
from tests.support.server_process import MIB, ServerProcess

SECONDS = 2.0

pytestmark = [sqlite_only, pytest.mark.slow]  # none of them reaches a database


async def attacked(
    server: ServerProcess, function: Callable[..., object], **options: object
) -> Good:
    """Return how a good client was served during an attack, by a server that goes on after it."""
    async with attack(function, server.target, **options) as attacker:
        await attacker.begun()
        async with good_client(server.target) as good:
            await asyncio.sleep(SECONDS)
        report = await attacker.report()
    assert report["sent"], report
    await served_alone(server.target, 0.5)
    assert good.failed == [], good
    assert server.peak_memory < 400 * MIB
    return good


@pytest.mark.parametrize("attack_with", [attacks.rapid_reset, attacks.cancelled_claims])
async def test_resets_of_many_connections_fail_no_call_of_other_clients(
    server: ServerProcess, attack_with: Callable[..., object]
) -> None:
    await attacked(server, attack_with, connections=10)


@pytest.mark.parametrize(
    ("attack_with", "options"),
    [
        (attacks.continuation_flood, {}),
        (attacks.open_calls, {}),
        (attacks.hpack_bomb, {"repeats": 16_000}),
        (attacks.settings_flood, {"connections": 10, "rate": 3_000_000}),
        (attacks.continuation_flood, {"size": 1_000}),
        (attacks.reconnects, {}),
    ],
)
async def test_an_http2_attack_delays_other_clients_little(
    server: ServerProcess, attack_with: Callable[..., object], options: dict[str, object]
) -> None:
    good = await attacked(server, attack_with, **options)
    assert good.p50 < LONGEST_P99, good


@pytest.mark.parametrize(
    ("attack_with", "options"),
    [
        (attacks.large_headers, {}),
        (attacks.hpack_bomb, {}),
        (attacks.ping_flood, {}),
        (attacks.settings_flood, {}),
    ],
)
async def test_an_http2_attack_does_not_slow_down_other_clients(
    server: ServerProcess, attack_with: Callable[..., object], options: dict[str, object]
) -> None:
    alone = await served_alone(server.target)
    (await attacked(server, attack_with, **options)).assert_served(alone)


async def test_rapid_resets_of_one_connection_do_not_delay_other_clients(
    server: ServerProcess,
) -> None:
    # Not five times what it is alone: a reset call costs gRPC itself most, before it is anyone's.
    assert (await attacked(server, attacks.rapid_reset)).p99 <= LONGEST_P99


async def test_500_half_sent_messages_use_no_more_memory_than_their_bytes(
    server: ServerProcess,
) -> None:
    good = await attacked(server, attacks.half_sent)
    assert good.p50 < LONGEST_P99, good
