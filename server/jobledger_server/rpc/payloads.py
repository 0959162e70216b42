"""Payloads for answers: they are read after their jobs, once it is known that they fit."""

from collections.abc import Sequence

from jobledger_server.admission.caller import Caller
from jobledger_server.domain.job import NO_PAYLOADS, Job, JobId, Payloads
from jobledger_server.ledger.reads import Reads


async def payloads_of(
    reads: Reads, jobs: Sequence[Job], caller: Caller
) -> Sequence[Payloads | None]:
    """Return each job's payloads as of its version, or None for a job that was deleted since."""
    ids = dict.fromkeys(job.id for job in jobs if job.payload_bytes)
    found = await reads.payloads(list(ids), caller) if ids else {}
    return [_as_of(job, found) for job in jobs]


def _as_of(job: Job, found: dict[JobId, Payloads]) -> Payloads | None:
    if not job.payload_bytes:
        return NO_PAYLOADS
    payloads = found.get(job.id)
    if payloads is None:
        return None
    # Since then it may have finished, or got a checkpoint for which an answer has no room.
    fits = len(payloads.checkpoint or b"") <= job.checkpoint_bytes
    return Payloads(
        parameters=payloads.parameters,
        checkpoint=payloads.checkpoint if fits else None,
        result=payloads.result if job.outcome_bytes else None,
        error_details=payloads.error_details if job.outcome_bytes else None,
    )
