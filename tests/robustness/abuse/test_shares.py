"""A tenant that creates many jobs takes no more than its part of the workers, whatever it tries.

With an access file: what the jobs of a tenant have, its rule allows. Counted in jobs of hers
that start before another tenant's only one.
"""

from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest

from jobledger_server.app import App
from tests.support.access_file import rule, write_access_file
from tests.support.databases import sqlite_only
from tests.support.rpc_caller import Caller, decoded

pytestmark = sqlite_only  # permissions do not reach a database

Start = Callable[..., Awaitable[App]]

JOBS, BATCH = 1_000, 250
FAIR_STARTS = 2
"""Of two tenants in turn, the other one goes first or second."""

RULES = "".join(
    (
        rule("ada", 'roles = ["owner"]\nusers = ["ada"]\nconcurrency_keys = ["model:{user}"]'),
        rule("eve", 'roles = ["owner"]\nusers = ["eve"]\nconcurrency_keys = ["model:{user}"]'),
        rule("farm", 'roles = ["worker"]\njob_types = ["*"]'),
        rule("ops", 'roles = ["operator"]'),
    )
)


def fairness_keys() -> Iterator[dict[str, Any]]:
    return ({"fairness_key": f"k{number}"} for number in count())


def of_ada() -> Iterator[dict[str, Any]]:
    return ({"fairness_key": "ada"} for _ in count())


def priority() -> Iterator[dict[str, Any]]:
    return ({"priority": 9} for _ in count())


def key_of_ada() -> Iterator[dict[str, Any]]:
    return ({"concurrency_key": "model:ada"} for _ in count())


async def flood(eve: Caller, choices: Iterator[dict[str, Any]]) -> str:
    """Create many jobs with what eve chooses, or else without. Return what she may not choose."""
    missing = ""
    for _ in range(JOBS // BATCH):
        chosen = [{"job_type": "render", **next(choices)} for _ in range(BATCH)]
        try:
            await eve.BatchCreateJobs(user_id="eve", requests=chosen)
        except grpc.aio.AioRpcError as error:
            missing = decoded(error).metadata["missing"]
            plain = [{"job_type": "render"}] * BATCH
            await eve.BatchCreateJobs(user_id="eve", requests=plain)
    return missing


@pytest.mark.parametrize(
    ("choices", "key"),
    [
        (fairness_keys, "fairness"),
        (of_ada, "fairness"),
        (priority, "max_priority"),
        (key_of_ada, "concurrency_keys"),
    ],
)
async def test_a_tenant_does_not_choose_its_own_share(
    start: Start, tmp_path: Path, choices: Callable[[], Iterator[dict[str, Any]]], key: str
) -> None:
    file = tmp_path / "access.toml"
    write_access_file(file, RULES)
    app = await start(access=file)
    async with grpc.aio.insecure_channel(app.address) as channel:
        ada, eve, farm, ops = (
            Caller(channel, token=name) for name in ("ada", "eve", "farm", "ops")
        )
        worker = Worker(farm)
        await ops.SetConcurrencyLimit(name="model", max_running=1)
        # One of ada's has ended: her queue is not new, and has nothing saved up.
        await ada.job()
        assert await worker.start()
        missing = await flood(eve, choices())
        job = await ada.job(concurrency_key="model:ada")
        starts = 1
        while (started := await worker.start()) != job.id and starts <= JOBS:
            assert started, "no job was claimed"
            starts += 1
        assert starts <= FAIR_STARTS
        assert missing == key


class Worker:
    """Claims one job after the other, and finishes each when it holds the next, or must."""

    def __init__(self, call: Caller) -> None:
        self._call = call
        self._held: list[Any] = []

    async def start(self) -> str:
        """Claim a job, and return its id, or nothing if there is none."""
        jobs = await self._claim()
        if self._held:
            done = self._held.pop(0)
            await self._call.MarkCompleted(job_id=done.id, attempt=done.attempt)
        self._held += jobs or await self._claim()
        return str(self._held[0].id) if self._held else ""

    async def _claim(self) -> list[Any]:
        return list((await self._call.ClaimJobs(worker_id="w", job_types=["render"])).jobs)
