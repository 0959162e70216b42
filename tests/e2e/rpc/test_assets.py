"""Assets over the wire: their names, their bounds, and their delivery with a deletion."""

from collections.abc import Sequence
from typing import Any

import pytest
from grpc import StatusCode

from jobledger_server.app import App
from jobledger_server.domain.job import Micros
from jobledger_server.sql.sql_store import SqlStore
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import COMPLETED, Caller, refusal, watching

PATH = {"asset_type": "t", "storage_path": "p"}


def assets(count: int, *, size: int = 0) -> list[dict[str, str]]:
    return [
        {"asset_type": "t", "storage_path": f"{number}/{'x' * size}", "name": f"{number}"}
        for number in range(count)
    ]


async def ended(call: Caller, links: Sequence[dict[str, str]]) -> Any:
    job = await call.running()
    return (await call.MarkCompleted(job_id=job.id, attempt=1, finish={"assets": links})).job


async def deletions(stream: Any, count: int, sizes: list[int] | None = None) -> list[Any]:
    """Read the next deletions, and the sizes of their messages."""
    found: list[Any] = []
    while len(found) < count:
        message = await stream.read()
        deleted = [change for change in message.changes.changes if change.deleted]
        found += deleted
        if sizes is not None and deleted:
            sizes.append(message.ByteSize())
    return found


async def synced(stream: Any) -> str:
    """Return the token of what was there when the stream started."""
    while not (message := await stream.read()).synced:
        pass
    return str(message.resume_token)


@in_turn(
    ("given", "name"),
    [
        ({"url": "https://e.example/a/b%20c.png?q=/d#/e"}, "b%20c.png"),
        ({"url": "https://e.example/a/b/", "storage_path": "c"}, "b"),
        ({"url": "https://e.example", "storage_path": "c/d.txt"}, "d.txt"),
        ({"url": "https://e.example/"}, "image/png"),
        ({"storage_path": "///"}, "image/png"),
        ({"storage_path": "a/" + "x" * 300 + ".png"}, "x" * 251 + ".png"),
        ({"storage_path": "a", "name": "of its own"}, "of its own"),
    ],
)
async def test_an_asset_has_a_name_by_default(
    call: Caller, given: dict[str, str], name: str
) -> None:
    job = await call.running()
    link = {"asset_type": "image/png", **given}
    made = await call.CreateAsset(job_id=job.id, attempt=1, asset={"asset": link})
    assert made.asset.name == name


async def test_a_name_that_is_taken_is_refused_with_the_asset_that_has_it(call: Caller) -> None:
    job = await call.running()
    asset = (await call.CreateAsset(job_id=job.id, attempt=1, asset={"asset": PATH})).asset
    again = await call.CreateAsset(job_id=job.id, attempt=1, asset={"asset": PATH})
    assert again.asset == asset
    refused = await refusal(
        call.CreateAsset(job_id=job.id, attempt=1, asset={"asset": {**PATH, "file_size": 1}})
    )
    assert (refused.code, refused.reason) == (StatusCode.ALREADY_EXISTS, "ASSET_NAME_TAKEN")
    assert refused.metadata == {"job_id": job.id, "name": "p"}
    assert "choose another name" in refused.message
    assert refused.details["ResourceInfo"].resource_type == "jobledger.v1.Asset"
    assert refused.details["ResourceInfo"].resource_name == asset.id


async def test_a_job_with_too_many_assets_is_refused_more(call: Caller) -> None:
    job = await call.running()
    await call.CreateAsset(job_id=job.id, attempt=1, asset={"asset": PATH})
    end = {"job_id": job.id, "attempt": 1}
    refused = await refusal(call.MarkCompleted(finish={"assets": assets(1000)}, **end))
    assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert refused.metadata == {"limit": "assets_per_job", "value": "1000", "scope": "request"}
    assert refused.message == "assets_per_job is limited to 1000"
    assert "RetryInfo" not in refused.details
    assert (await call.MarkCompleted(finish={"assets": assets(999)}, **end)).job.status == COMPLETED


async def test_a_deletion_delivers_the_assets_to_its_caller_and_to_every_watch(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, other = await ended(call, assets(3)), await ended(call, [])
    listed = (await call.ListAssets(job_id=job.id, user_id="ada")).assets
    reads: list[int] = []
    read_assets = SqlStore.read_assets

    async def counted(self: SqlStore, ids: Any) -> Any:
        reads.append(len(ids))
        return await read_assets(self, ids)

    monkeypatch.setattr(SqlStore, "read_assets", counted)
    async with (
        watching(call.WatchJobs(user_id="ada")) as first,
        watching(call.WatchJobs(user_id="ada")) as second,
    ):
        token = await synced(first)
        await synced(second)
        deleted = await call.DeleteJob(job_id=job.id, user_id="ada")
        assert deleted.assets == listed
        for stream in (first, second):
            (change,) = await deletions(stream, 1)
            assert (change.job.id, change.deleted_assets) == (job.id, listed)
        assert sum(reads) <= 2, "once for the caller and once for all watches"
    none = await call.DeleteJob(job_id=other.id, user_id="ada")
    assert not none.assets
    assert sum(reads) <= 2
    # Also to one that was away, which reads the table.
    async with watching(call.WatchJobs(user_id="ada", resume_token=token)) as stream:
        found = await deletions(stream, 2)
    assert [list(change.deleted_assets) for change in found] == [list(listed), []]
    gone = await refusal(call.ListAssets(job_id=job.id, user_id="ada"))
    assert gone.reason == "JOB_NOT_FOUND"


async def test_the_assets_of_many_deletions_come_in_messages_of_bounded_size(
    call: Caller,
) -> None:
    jobs = [await ended(call, assets(450, size=1000)) for _ in range(5)]
    async with watching(call.WatchJobs(user_id="ada")) as stream:
        token = await synced(stream)
    for job in jobs:
        await call.DeleteJob(job_id=job.id, user_id="ada")
    sizes: list[int] = []
    async with watching(call.WatchJobs(user_id="ada", resume_token=token)) as stream:
        found = await deletions(stream, 5, sizes)
    assert [change.job.id for change in found] == [job.id for job in jobs]
    assert all(len(change.deleted_assets) == 450 for change in found)
    assert len(sizes) == 5
    assert max(sizes) <= 2**20


async def test_a_watch_whose_deletion_was_forgotten_is_told_so(app: App, call: Caller) -> None:
    """Its token may still be within the change buffer, which has no assets."""
    job = await ended(call, assets(1))
    async with watching(call.WatchJobs(user_id="ada")) as stream:
        token = await synced(stream)
    await call.DeleteJob(job_id=job.id, user_id="ada")
    await app.store.compact_deletions(Micros(0), limit=10)
    async with watching(call.WatchJobs(user_id="ada", resume_token=token)) as stream:
        refused = await refusal(deletions(stream, 1))
    assert refused.reason == "RESUME_TOKEN_EXPIRED"
