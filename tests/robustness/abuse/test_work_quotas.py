"""An identity with quotas attacks by Work, and by requests that it never finishes."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from jobledger.v1.job_service_pb2 import CreateJobRequest
from jobledger_server.rpc.access.access_file import DEFAULT_WORK_STREAMS
from tests.robustness.abuse import work_attacks as attacks
from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.good_client import good_client, served_alone
from tests.support.access_file import write_access_file
from tests.support.databases import sqlite_only
from tests.support.rpc_caller import Caller
from tests.support.server_process import MIB, ServerProcess

pytestmark = [sqlite_only, pytest.mark.slow]  # what it costs is the same on both databases

SECONDS = 4.0

MAX_MEMORY = 600 * MIB


def caller(name: str, quotas: str = "") -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return (
        f'[[caller]]\nname = "{name}"\ntoken_sha256 = "{digest}"\n'
        f'roles = ["owner", "worker"]\nusers = ["*"]\njob_types = ["*"]\n{quotas}\n'
    )


@pytest.fixture
def guarded(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """Serves `good`, and `eve` with a quota of 50 calls a second."""
    file = tmp_path / "access.toml"
    write_access_file(
        file, caller("good") + caller("eve", "[caller.quotas]\ncalls_per_second = 50")
    )
    file.chmod(0o600)
    arguments = ["--access", str(file)]
    with ServerProcess(tmp_path, database=database_url, arguments=arguments) as server:
        yield server


async def attacked(
    server: ServerProcess, function: Callable[..., object], **options: object
) -> dict[str, int]:
    """Attack, and return what the attack reports, if a good client was served during it."""
    alone = await served_alone(server.target, token="good")
    async with attack(function, server.target, token="eve", **options) as attacker:
        await attacker.begun()
        async with good_client(server.target, token="good") as good:
            await asyncio.sleep(SECONDS)
        report: dict[str, int] = await attacker.report()
    good.assert_served(alone)
    assert server.peak_memory < MAX_MEMORY
    return report


@pytest.mark.parametrize("streams", [1, 20])
@pytest.mark.parametrize("what", attacks.MESSAGES)
async def test_floods_of_messages_of_an_identity_with_a_quota_do_not_delay_others(
    guarded: ServerProcess, what: str, streams: int
) -> None:
    report = await attacked(guarded, attacks.flood, what=what, streams=streams)
    assert report["streams"] > 0
    assert report["sent"] > 0


@pytest.mark.parametrize(("count", "size"), [(50, 200_000), (1000, 0)])
async def test_renewals_of_the_same_jobs_on_many_streams_do_not_delay_others(
    guarded: ServerProcess, count: int, size: int
) -> None:
    async with grpc.aio.insecure_channel(guarded.target) as channel:
        call = Caller(channel, token="good")
        creation = CreateJobRequest(job_type="render", parameters={"x": "x" * size})
        ids: list[str] = []
        while len(ids) < count:
            await call.BatchCreateJobs(user_id="ada", requests=[creation] * (4 if size else 100))
            claimed = await call.ClaimJobs(worker_id="w", job_types=["render"], max_jobs=100)
            ids += [job.id for job in claimed.jobs]
    report = await attacked(guarded, attacks.held_jobs, job_ids=ids[:count], streams=20)
    assert report["streams"] > 0


async def test_unread_results_of_many_streams_are_bounded(guarded: ServerProcess) -> None:
    report = await attacked(guarded, attacks.unread_results, streams=200)
    assert 0 < report["streams"] <= DEFAULT_WORK_STREAMS


async def test_streams_that_hold_a_thousand_jobs_each_are_bounded(guarded: ServerProcess) -> None:
    report = await attacked(guarded, attacks.many_holdings, streams=200)
    assert 0 < report["streams"] <= DEFAULT_WORK_STREAMS


async def test_second_messages_that_are_never_finished_are_bounded(guarded: ServerProcess) -> None:
    report = await attacked(guarded, attacks.unfinished_messages, connections=40, streams=100)
    assert report["streams"] - report["refused"] <= DEFAULT_WORK_STREAMS


async def test_unary_requests_that_are_never_finished_are_bounded(guarded: ServerProcess) -> None:
    report = await attacked(guarded, attacks.half_sent_requests, connections=40, streams=100)
    assert report["refused"] > 3000
