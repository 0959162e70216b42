"""The figures for Prometheus, asked for as Prometheus does."""

import asyncio
import socket
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from jobledger_server.telemetry.metrics import MetricsUnavailable, serving_metrics
from tests.support.rpc_caller import Caller, watching
from tests.support.server_process import free_port

Start = Callable[..., Any]


async def scraped(address: str) -> dict[str, float]:
    def read() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    lines = (await asyncio.to_thread(read)).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


async def test_the_figures_follow_the_service(start: Start) -> None:
    address = f"127.0.0.1:{free_port()}"
    app = await start(metrics=address)
    before = await scraped(address)
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        job = await call.running()
        async with watching(call.WatchJob(job_id=job.id, user_id="ada")) as stream:
            await stream.read()
            after = await scraped(address)
    assert after["jobledger_feed_seq"] == before["jobledger_feed_seq"] + 2
    assert (before["jobledger_watches"], after["jobledger_watches"]) == (0, 1)
    assert after["jobledger_feed_holes_total"] == 0
    assert after["process_resident_memory_bytes"] > 0


def test_a_port_that_is_taken_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MetricsUnavailable, match=address), serving_metrics(address, {}):
            pass
