"""The assets of deleted jobs: they are read when the deletion is sent."""

from collections.abc import Mapping, Sequence

from jobledger.v1 import asset_pb2
from jobledger_server.admission.caller import Caller
from jobledger_server.domain.job import Job, JobId
from jobledger_server.ledger.reads import Reads
from jobledger_server.rpc.messages import asset_message
from jobledger_server.rpc.pages import paced


async def deleted_assets(
    reads: Reads, jobs: Sequence[Job], caller: Caller
) -> Mapping[JobId, Sequence[asset_pb2.Asset]]:
    """Return the assets of those of the jobs that have any and are not forgotten."""
    having = [job for job in jobs if job.asset_count]
    found = await reads.assets(having, caller) if having else {}
    assets: dict[JobId, list[asset_pb2.Asset]] = {}
    owned = ((job, asset) for job in having for asset in found.get(job.id, ()))
    async for job, asset in paced(owned):
        assets.setdefault(job.id, []).append(asset_message(asset, job.user_id))
    return assets
