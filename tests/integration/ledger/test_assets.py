"""Assets in the database: one of each name, and all of a deleted job until it is forgotten."""

from collections.abc import AsyncIterator, Sequence

import pytest
from msgspec.structs import replace

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import (
    ChangeStatus,
    Delete,
    LinkAsset,
    Release,
    Report,
)
from jobledger_server.domain.errors import AssetNameTaken
from jobledger_server.domain.job import Asset, AssetLink, Job, JobId, JobStatus
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from tests.support.counted import Counted, counting
from tests.support.ledger_calls import apply, claim, claim_jobs, created

LINK = AssetLink("image/png", "", "out/a.png", 7, "a.png", "0f" * 32, '"1"')
OTHER = AssetLink("text/plain", "", "log", 1, "log")


async def running(ledger: Ledger) -> Job:
    await created(ledger)
    (job,) = await claim_jobs(ledger, claim())
    return job


async def next_attempt(ledger: Ledger, job: Job) -> Job:
    await apply(ledger, Release(job_id=job.id, attempt=job.attempt))
    (again,) = await claim_jobs(ledger, claim())
    assert (again.id, again.attempt) == (job.id, job.attempt + 1)
    return again


async def listed(store: SqlStore, job_id: JobId) -> Sequence[AssetLink]:
    return [asset.link for asset in await store.list_assets(job_id, after=None, limit=2000)]


async def kept(store: SqlStore, job_id: JobId) -> Sequence[AssetLink]:
    assets: Sequence[Asset] = (await store.read_assets([job_id])).get(job_id, ())
    return [asset.link for asset in assets]


async def test_a_name_is_taken_within_an_attempt_also_in_one_batch(
    ledger: Ledger, store: SqlStore
) -> None:
    job = await running(ledger)
    commands = [
        LinkAsset(job_id=job.id, link=LINK),
        LinkAsset(job_id=job.id, link=replace(LINK, file_size=8)),
        Report(job_id=job.id, progress=5),
    ]
    linked, refused, reported = await ledger.submit(commands, SERVICE)
    assert isinstance(refused, AssetNameTaken)
    assert not isinstance(linked, Exception)
    assert not isinstance(reported, Exception)
    (later,) = await ledger.submit(commands[1:2], SERVICE)
    assert isinstance(later, AssetNameTaken)
    assert await listed(store, job.id) == [LINK]


async def test_a_later_attempt_replaces_what_an_earlier_one_linked(
    ledger: Ledger, store: SqlStore
) -> None:
    job = await running(ledger)
    for link in (LINK, OTHER):
        await apply(ledger, LinkAsset(job_id=job.id, link=link, attempt=1, request_id=link.name))
    job = await next_attempt(ledger, job)
    same_place, elsewhere = replace(LINK, file_size=8), replace(OTHER, storage_path="2/log")
    changed = await apply(ledger, LinkAsset(job_id=job.id, link=same_place, attempt=2))
    assert changed.changed
    end = ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, attempt=2, assets=(elsewhere,))
    ended = (await apply(ledger, end)).job
    assert await listed(store, job.id) == [same_place, elsewhere]
    assert await kept(store, job.id) == [same_place, replace(OTHER, name=""), elsewhere]
    assert ended.asset_count == 3


async def test_two_attempts_in_one_batch_leave_one_asset_of_a_name(
    ledger: Ledger, store: SqlStore
) -> None:
    job = await running(ledger)
    other = replace(LINK, storage_path="2")
    await ledger.submit(
        [
            LinkAsset(job_id=job.id, link=LINK, attempt=1),
            LinkAsset(job_id=job.id, link=OTHER, attempt=1),
            Release(job_id=job.id, attempt=1),
            ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING, worker_id="v"),
            LinkAsset(job_id=job.id, link=other, attempt=2),
            LinkAsset(job_id=job.id, link=replace(OTHER, file_size=2), attempt=2),
        ],
        SERVICE,
    )
    assert await listed(store, job.id) == [replace(OTHER, file_size=2), other]
    assert await kept(store, job.id) == [
        replace(LINK, name=""),
        replace(OTHER, file_size=2),
        other,
    ]


async def test_a_job_that_is_made_and_deleted_in_one_batch_keeps_its_assets(
    ledger: Ledger, store: SqlStore
) -> None:
    job = await running(ledger)
    end = ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, assets=(LINK,))
    await ledger.submit([end, Delete(job_id=job.id, user_id="ada")], SERVICE)
    assert await kept(store, job.id) == [LINK]


@pytest.fixture
async def counted(monkeypatch: pytest.MonkeyPatch, database: Database) -> AsyncIterator[Counted]:
    with counting(database, monkeypatch) as counted:
        yield counted


async def test_the_first_asset_of_a_job_costs_no_look_up(
    counted: Counted, ledger: Ledger, store: SqlStore
) -> None:
    job = await running(ledger)

    async def reads(command: LinkAsset | ChangeStatus) -> int:
        counted.reset()
        await apply(ledger, command)
        return sum("FROM assets" in statement for statement in counted.statements)

    assert await reads(LinkAsset(job_id=job.id, link=LINK, request_id="r")) == 0
    # By its request id and by its name, never all of the job's.
    assert await reads(LinkAsset(job_id=job.id, link=OTHER, request_id="s")) == 2
    assert await reads(ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED)) == 0
