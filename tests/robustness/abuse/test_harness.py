"""The measure itself: a client that is not served fails it, and attackers end by themselves."""

import asyncio
import os
import signal
import time

import pytest

from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.good_client import Good, good_client, served_alone
from tests.robustness.abuse.small_attacks import failing, polling, waiting
from tests.support.databases import sqlite_only
from tests.support.server_process import MIB, ServerProcess


async def test_an_attack_starts_and_reports_on_request() -> None:
    target = "127.0.0.1:9"
    async with attack(waiting, target, word="so") as waiter, attack(polling, target) as poller:
        await waiter.begun()
        await poller.begun()
        assert await waiter.report() == {"target": target, "word": "so"}
        assert (await poller.report())["rounds"] > 0


async def test_an_attack_that_fails_fails_the_test() -> None:
    async with attack(failing, "127.0.0.1:9") as attacker:
        with pytest.raises(AssertionError, match="ended with 1"):
            await attacker.report()


async def test_only_loopback_is_attacked() -> None:
    with pytest.raises(AssertionError, match="only loopback"):
        async with attack(waiting, "192.0.2.1:9", word="so"):
            pass


@pytest.mark.slow
@sqlite_only
async def test_a_client_alone_meets_the_latency_bound(server: ServerProcess) -> None:
    alone = await served_alone(server.target, 1)
    assert alone.calls > 30
    alone.assert_served(alone)
    assert 10 * MIB < server.peak_memory < 500 * MIB


@pytest.mark.slow
@sqlite_only
async def test_a_server_that_freezes_or_dies_fails_the_measurement(server: ServerProcess) -> None:
    alone = await served_alone(server.target, 1)
    async with good_client(server.target) as held_up:
        server.signal(signal.SIGSTOP)
        await asyncio.sleep(1)
        server.signal(signal.SIGCONT)
    assert held_up.failed == []
    with pytest.raises(AssertionError, match="alone"):
        held_up.assert_served(alone)

    async with good_client(server.target) as cut_off:
        server.kill()
        await _calls(cut_off, cut_off.calls + 1)
    with pytest.raises(AssertionError, match="UNAVAILABLE"):
        cut_off.assert_served(alone)


@pytest.mark.slow
@sqlite_only
async def test_calls_do_not_count_while_the_disk_stands_still(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with good_client(server.target) as good:
        with monkeypatch.context() as slow:
            slow.setattr(os, "fsync", lambda file: time.sleep(2))
            await asyncio.sleep(0.2)
            server.signal(signal.SIGSTOP)
            await asyncio.sleep(1)
            server.signal(signal.SIGCONT)
            await asyncio.sleep(1)
        await _calls(good, good.calls + 10)
    assert good.left_out > 30
    good.assert_served(good)
    assert good.p99 < 0.5


async def _calls(good: Good, count: int) -> None:
    while good.calls < count:
        await asyncio.sleep(0.01)
