"""Links assets to a job. Each has a name, which is unique among the job's assets."""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from jobledger_server.domain.errors import AssetNameTaken, LimitExceeded
from jobledger_server.domain.job import Asset, AssetId, AssetLink, Instant, Job
from jobledger_server.domain.limits import MAX_ASSET_BYTES, MAX_ASSETS


class Linked(Struct, frozen=True):
    """What linking assets to a job does.

    Attributes:
        job: The job with its new counts.
        found: The assets that have the names of the links from now on, by their names.
        added: The new ones.
        updated: Assets of earlier attempts, as they are from now on.
    """

    job: Job
    found: Mapping[str, Asset]
    added: tuple[Asset, ...]
    updated: tuple[Asset, ...]


def link(
    job: Job,
    links: Sequence[AssetLink],
    named: Mapping[str, Asset],
    *,
    now: Instant,
    new_id: Callable[[], str],
    request_id: str = "",
) -> Linked:
    """Link assets to a job, in the name of its current attempt.

    A link that repeats an asset changes nothing. Another one of its name is refused if the asset
    is this attempt's. If it is an earlier attempt's, which may have stored only a part, it is
    replaced. In the same place the file was overwritten, so the asset becomes the new one. In
    another place the old file still exists: its asset is kept without a name, for the deletion.

    Args:
        job: The job.
        links: The assets to link.
        named: The job's assets that have the names of these links, by their names.
        now: The database server's time.
        new_id: Returns new ids.
        request_id: That of the request.

    Raises:
        AssetNameTaken: The attempt has linked another asset of the same name.
        LimitExceeded: The job would have too many assets, or too many bytes of them.
    """
    found = dict(named)
    added: list[Asset] = []
    updated: list[Asset] = []
    count, size = job.asset_count, job.asset_bytes
    for each in links:
        old = found.get(each.name)
        if old is not None and old.link == each:
            continue
        if old is not None and old.attempt == job.attempt:
            raise AssetNameTaken(job.id, each.name, old.id)
        size += each.text_bytes
        if old is not None and old.link.place == each.place:
            size -= old.link.text_bytes
            asset = replace(old, link=each, attempt=job.attempt, request_id=request_id)
            updated.append(asset)
        else:
            if old is not None:
                size -= len(each.name.encode())
                updated.append(replace(old, link=replace(old.link, name=""), request_id=""))
            count += 1
            asset = Asset(
                id=AssetId(new_id()),
                job_id=job.id,
                link=each,
                create_time=now,
                attempt=job.attempt,
                request_id=request_id,
            )
            added.append(asset)
        found[each.name] = asset
    if count > MAX_ASSETS and count > job.asset_count:
        raise LimitExceeded("assets_per_job", MAX_ASSETS, scope="request")
    if size > MAX_ASSET_BYTES and size > job.asset_bytes:
        raise LimitExceeded("asset_bytes_per_job", MAX_ASSET_BYTES, scope="request")
    counted = replace(job, asset_count=count, asset_bytes=size)
    return Linked(counted, found, tuple(added), tuple(updated))
