"""The assets of deleted jobs: they are read when the deletion is sent."""

import asyncio
from collections.abc import Sequence

from jobledger.v1 import asset_pb2
from jobledger_server.admission.caller import Caller
from jobledger_server.domain.job import Job, JobId
from jobledger_server.ledger.reads import Reads
from jobledger_server.rpc.messages import asset_message
from jobledger_server.rpc.pages import ROWS_PER_STEP


async def deleted_assets(
    reads: Reads, jobs: Sequence[Job], caller: Caller
) -> dict[JobId, Sequence[asset_pb2.Asset]]:
    """Return the assets of those of the jobs that have any and are not forgotten."""
    having = [job for job in jobs if job.asset_count]
    found = await reads.assets(having, caller) if having else {}
    messages: dict[JobId, Sequence[asset_pb2.Asset]] = {}
    for job in having:
        if job.id in found:
            assets = found[job.id]
            made: list[asset_pb2.Asset] = []
            for first in range(0, len(assets), ROWS_PER_STEP):
                step = assets[first : first + ROWS_PER_STEP]
                made += [asset_message(asset, job.user_id) for asset in step]
                await asyncio.sleep(0)
            messages[job.id] = made
    return messages
