"""Floods of claims do not delay clients that write."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest

from tests.robustness.abuse.attacker import attack, begin, parent_waits
from tests.robustness.abuse.good_client import good_client, served_alone
from tests.support.rpc_caller import Caller
from tests.support.seeding import seeded
from tests.support.server_process import MANY_STREAMS, ServerProcess

pytestmark = pytest.mark.slow

CLAIMERS = 512
JOBS = 20_000
SECONDS = 3


def claiming(target: str, *, types: int, shared: list[str], max_jobs: int) -> Mapping[str, object]:
    """Claim without a pause, each claimer with a set of types of its own and the shared ones."""
    return asyncio.run(_claim(target, types, shared, max_jobs))


async def _claim(target: str, types: int, shared: list[str], max_jobs: int) -> Mapping[str, object]:
    claimed = answers = refused = 0
    ended = False

    async def claimer(number: int, call: Caller) -> None:
        nonlocal claimed, answers, refused
        own = [f"t-{number}-{each}" for each in range(types)]
        while not ended:
            try:
                answer = await call.ClaimJobs(
                    worker_id=f"w-{number}", job_types=[*own, *shared], max_jobs=max_jobs
                )
            except grpc.aio.AioRpcError:
                refused += 1
                await asyncio.sleep(1)  # as the refusal asks
            else:
                answers += 1
                claimed += len(answer.jobs)

    async with grpc.aio.insecure_channel(target) as channel, asyncio.TaskGroup() as claimers:
        call = Caller(channel)
        for number in range(CLAIMERS):
            claimers.create_task(claimer(number, call))
        await asyncio.sleep(0.5)
        begin()
        while parent_waits():
            await asyncio.sleep(0.05)
        ended = True
    return {"claimed": claimed, "answers": answers, "refused": refused}


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> ServerProcess:
    seeded(database_url, JOBS)
    with ServerProcess(tmp_path, database=database_url, arguments=MANY_STREAMS) as server:
        yield server


@pytest.mark.parametrize(
    ("types", "shared", "max_jobs"),
    [
        pytest.param(99, ["many"], 1, id="one job each of a hundred types"),
        pytest.param(1, ["many"], 100, id="many jobs each"),
        pytest.param(100, [], 100, id="nothing, of a hundred types"),
    ],
)
async def test_claims_with_distinct_sets_of_types_delay_no_other_client(
    server: ServerProcess, types: int, shared: list[str], max_jobs: int
) -> None:
    alone = await served_alone(server.target)
    options = {"types": types, "shared": shared, "max_jobs": max_jobs}
    async with attack(claiming, server.target, **options) as attacker:
        await attacker.begun()
        async with good_client(server.target) as good:
            await asyncio.sleep(SECONDS)
        report = await attacker.report()
    good.assert_served(alone)
    assert report["answers"] > 0
    assert (report["claimed"] > 0) == bool(shared)
