"""A worker: takes jobs that are queued, does them, tells how far it is and how it ended.

It knows two types of job:

`pack`    {"archive": "docs.tar.gz", "sources": ["docs", "README.md"]}
          packs the sources and writes a manifest of their SHA-256, docs.sha256.
`verify`  {"archive": "docs.tar.gz", "manifest": "docs.sha256"}
          compares what is in the archive with the manifest.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from packing import ArchiveDamaged, Step, find_files, pack, sha256, verify

from jobledger_client import (
    Asset,
    AsyncClient,
    IllegalTransition,
    Job,
    JobError,
    JobStatus,
    JobTerminal,
)

POLL_SECONDS = 0.2


class CannotDo(Exception):
    """A job cannot be done, for a reason that its owner should know."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PackWorker:
    """Does one job after the other.

    client: its `user_id` is the owner whose jobs are done.
    name: of this worker. Of several that run at once each needs its own: to the
        service a second start by the same worker is a repetition of the first.
    sources: the folder that holds what is to be packed.
    output: the folder of the archives and manifests.
    pace: the least seconds that a job takes, spread over its work. What is done in
        an instant cannot be watched.
    """

    def __init__(
        self, client: AsyncClient, name: str, sources: Path, output: Path, *, pace: float = 0.0
    ) -> None:
        self._client = client
        self._name = name
        self._sources = sources
        self._output = output
        self._pace = pace
        self._handlers = {"pack": self._pack, "verify": self._verify}

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            job = await self._start_next()
            if job is None:
                await asyncio.sleep(POLL_SECONDS)
            else:
                await self._do(job)

    async def _start_next(self) -> Job | None:
        """Start the oldest job that is queued; None where there is none."""
        queued = self._client.list_jobs(
            statuses=[JobStatus.JOB_STATUS_QUEUED], job_types=self._handlers
        )
        for job in reversed([job async for job in queued]):
            try:
                return await self._client.start_job(job.id, worker_id=self._name)
            except (IllegalTransition, JobTerminal):
                continue  # Another worker was faster.
        return None

    async def _do(self, job: Job) -> None:
        try:
            await self._handlers[job.job_type](job, MessageToDict(job.parameters))
        except CannotDo as why:
            await self._client.mark_failed(job.id, str(why), reason=why.reason, attempt=job.attempt)
        except Exception as bug:  # noqa: BLE001 - a job must not wait for a worker that gave up
            await self._client.mark_failed(
                job.id, repr(bug), reason="UNEXPECTED", attempt=job.attempt
            )

    async def _pack(self, job: Job, parameters: dict[str, Any]) -> None:
        archive = self._place(parameters["archive"])
        manifest = archive.with_name(f"{archive.name.removesuffix('.tar.gz')}.sha256")
        files, missing = find_files(self._sources, parameters["sources"])
        if not files:
            raise CannotDo("NOTHING_TO_PACK", "none of the sources can be read")

        await self._report(job, pack(self._sources, files, archive, manifest))

        result = {
            "files": len(files),
            "sha256": {made.name: sha256(made.read_bytes()) for made in (archive, manifest)},
        }
        assets = [self._asset("application/gzip", archive), self._asset("text/plain", manifest)]
        if missing:
            error = JobError(reason="FILES_MISSING", message=f"left out: {', '.join(missing)}")
            error.details.update({"missing": missing})
            await self._client.mark_partial(
                job.id, result, error=error, assets=assets, attempt=job.attempt
            )
        else:
            await self._client.mark_completed(job.id, result, assets=assets, attempt=job.attempt)

    async def _verify(self, job: Job, parameters: dict[str, Any]) -> None:
        archive = self._place(parameters["archive"])
        manifest = self._place(parameters["manifest"])
        try:
            await self._report(job, verify(archive, manifest))
        except ArchiveDamaged as damage:
            raise CannotDo("ARCHIVE_DAMAGED", str(damage)) from damage
        await self._client.mark_completed(job.id, attempt=job.attempt)

    async def _report(self, job: Job, steps: Iterator[Step]) -> None:
        """Do the work step by step. Each takes milliseconds; longer ones would need a thread."""
        before = 0.0
        for step in steps:
            await self._client.update_progress(
                job.id, int(100 * step.done), progress_message=step.file, attempt=job.attempt
            )
            await asyncio.sleep(self._pace * (step.done - before))
            before = step.done

    def _place(self, name: str) -> Path:
        """Give the file of that name in the output folder; owners choose names, not folders."""
        if name != Path(name).name:
            raise CannotDo("BAD_NAME", f"{name!r} is not the plain name of a file")
        return self._output / name

    def _asset(self, asset_type: str, file: Path) -> Asset:
        return Asset(
            asset_type=asset_type,
            storage_path=file.relative_to(self._output).as_posix(),
            file_size=file.stat().st_size,
        )
