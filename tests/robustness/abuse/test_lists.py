"""Lists delay no other client, even of owners with many jobs and with filters that match none."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from tests.robustness.abuse.attacker import attack, begin, parent_waits
from tests.robustness.abuse.good_client import good_client, served_alone
from tests.support.rpc_caller import Caller
from tests.support.seeding import seeded
from tests.support.server_process import MANY_STREAMS, MIB, ServerProcess

pytestmark = pytest.mark.slow

LISTS = 100
JOBS = 200_000
SECONDS = 3


def listing(target: str) -> Mapping[str, object]:
    """List all jobs of an owner, again and again, for a label that none has."""
    return asyncio.run(_list(target))


async def _list(target: str) -> Mapping[str, object]:
    answers: Counter[str] = Counter()
    ended = False

    async def list_all(call: Caller) -> None:
        token = ""
        while not ended:
            try:
                page = await call.ListJobs(
                    user_id="ada", filter={"labels": {"no": "such"}}, page_token=token
                )
            except grpc.aio.AioRpcError as error:
                answers[error.code().name] += 1
                await asyncio.sleep(1)  # as the refusal asks
            else:
                answers["OK"] += 1
                token = page.next_page_token

    async with grpc.aio.insecure_channel(target) as channel, asyncio.TaskGroup() as lists:
        call = Caller(channel)
        for _ in range(LISTS):
            lists.create_task(list_all(call))
        await asyncio.sleep(0.5)
        begin()
        while parent_waits():
            await asyncio.sleep(0.05)
        ended = True
    return answers


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    seeded(database_url, JOBS)
    with ServerProcess(tmp_path, database=database_url, arguments=MANY_STREAMS) as server:
        yield server


async def test_a_hundred_lists_for_an_unused_label_delay_no_other_client(
    server: ServerProcess,
) -> None:
    alone = await served_alone(server.target)
    async with attack(listing, server.target) as attacker:
        await attacker.begun()
        async with good_client(server.target) as good:
            await asyncio.sleep(SECONDS)
        report = await attacker.report()
    good.assert_served(alone)
    # None times out, because none reads more than a part.
    assert set(report) <= {"OK", "RESOURCE_EXHAUSTED"}
    assert report["OK"] > LISTS
    assert server.peak_memory < 300 * MIB
