"""A worker that packs files: two handlers, and the worker library does the rest.

It knows two types of job:

`pack`    {"archive": "docs.tar.gz", "sources": ["docs", "README.md"]}
          packs the sources and writes a manifest of their SHA-256, docs.sha256.
`verify`  {"archive": "docs.tar.gz", "manifest": "docs.sha256"}
          compares what is in the archive with the manifest.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from packing import ArchiveDamaged, Step, find_files, pack, sha256, verify

from jobledger_client import Asset, AsyncClient
from jobledger_client.worker import ClaimedJob, Completed, Failed, Partial, Worker


def pack_worker(
    client: AsyncClient, sources: Path, output: Path, *, concurrency: int, pace: float = 0.0
) -> Worker:
    """Make a worker for both types of job.

    sources: the folder that holds what is to be packed.
    output: the folder of the archives and manifests.
    pace: the least seconds that a job takes, spread over its work. What is done in
        an instant cannot be watched.
    """
    worker = Worker(client, concurrency=concurrency, worker_id="packer")

    @worker.handler("pack")
    async def pack_files(job: ClaimedJob) -> Completed | Partial | Failed:
        archive = place(output, job.parameters["archive"])
        manifest = archive.with_name(f"{archive.name.removesuffix('.tar.gz')}.sha256")
        files, missing = find_files(sources, names(job.parameters["sources"]))
        if not files:
            return Failed("none of the sources can be read", "NOTHING_TO_PACK")

        await report(job, pack(sources, files, archive, manifest), pace)

        made = (archive, manifest)
        result = {
            "files": len(files),
            "sha256": {file.name: sha256(file.read_bytes()) for file in made},
        }
        assets = [asset(kind, file) for kind, file in zip(KINDS, made, strict=True)]
        if missing:
            words = f"left out: {', '.join(missing)}"
            facts = {"missing": missing}
            return Partial(result, words, "FILES_MISSING", details=facts, assets=assets)
        return Completed(result, assets)

    @worker.handler("verify")
    async def verify_archive(job: ClaimedJob) -> Completed | Failed:
        archive = place(output, job.parameters["archive"])
        manifest = place(output, job.parameters["manifest"])
        try:
            await report(job, verify(archive, manifest), pace)
        except ArchiveDamaged as damage:
            return Failed(str(damage), "ARCHIVE_DAMAGED")
        return Completed()

    return worker


KINDS = ("application/gzip", "text/plain")


async def report(job: ClaimedJob, steps: Iterator[Step], pace: float) -> None:
    """Do the work step by step. Each takes milliseconds; longer ones would need a thread."""
    before = 0.0
    for step in steps:
        await job.progress(100 * step.done, step.file)
        await asyncio.sleep(pace * (step.done - before))
        before = step.done


def place(output: Path, name: object) -> Path:
    """Give the file of that name in the output folder; owners choose names, not folders."""
    if not isinstance(name, str) or name != Path(name).name:
        raise ValueError(f"{name!r} is not the plain name of a file")
    return output / name


def names(value: object) -> list[str]:
    """Take a list of names as what it is; owners can send anything."""
    if not isinstance(value, list):
        raise TypeError("the sources are not a list")
    return [str(name) for name in value]


def asset(asset_type: str, file: Path) -> Asset:
    return Asset(asset_type=asset_type, storage_path=file.name, file_size=file.stat().st_size)
