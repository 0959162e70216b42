"""A worker that packs files: two handlers, and the worker library does the rest.

It has two types of job:

`pack`    {"archive": "docs.tar.gz", "sources": ["docs", "README.md"]}
          packs the sources and writes a manifest of their SHA-256, docs.sha256.
`verify`  {"archive": "docs.tar.gz", "manifest": "docs.sha256"}
          compares what is in the archive with the manifest.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packing import ArchiveDamaged, Step, find_files, sha256
from packing import pack as pack_files
from packing import verify as verify_archive

from jobledger import Asset, AsyncClient, ClaimedJob, Completed, Failed, Partial, Worker


@dataclass
class Pack:
    """The parameters of `pack`."""

    archive: str
    sources: list[str]


@dataclass
class Verify:
    """The parameters of `verify`."""

    archive: str
    manifest: str


def pack_worker(
    client: AsyncClient, sources: Path, output: Path, *, concurrency: int, pace: float = 0.0
) -> Worker:
    """Make a worker for both types of job.

    Args:
        client: makes the worker's calls.
        sources: the folder that holds what is to be packed.
        output: the folder of the archives and manifests.
        concurrency: how many jobs at once.
        pace: the least seconds that a job takes, spread over its work. What is done in
            an instant cannot be watched.
    """
    worker = Worker(client, concurrency=concurrency, worker_id="packer")

    @worker.handler
    async def pack(job: ClaimedJob, params: Pack) -> Completed | Partial | Failed:
        archive = place(output, params.archive)
        manifest = archive.with_name(f"{archive.name.removesuffix('.tar.gz')}.sha256")
        files, missing = find_files(sources, params.sources)
        if not files:
            return Failed("none of the sources can be read", "NOTHING_TO_PACK")

        await report(job, pack_files(sources, files, archive, manifest), pace)

        made = (archive, manifest)
        result = {
            "files": len(files),
            "sha256": {file.name: sha256(file.read_bytes()) for file in made},
        }
        assets = [asset(kind, file) for kind, file in zip(KINDS, made, strict=True)]
        if missing:
            message = f"left out: {', '.join(missing)}"
            facts = {"missing": missing}
            return Partial(result, message, "FILES_MISSING", details=facts, assets=assets)
        return Completed(result, assets)

    @worker.handler
    async def verify(job: ClaimedJob, params: Verify) -> Failed | None:
        archive = place(output, params.archive)
        manifest = place(output, params.manifest)
        try:
            await report(job, verify_archive(archive, manifest), pace)
        except ArchiveDamaged as damage:
            return Failed(str(damage), "ARCHIVE_DAMAGED")
        return None

    return worker


KINDS = ("application/gzip", "text/plain")


async def report(job: ClaimedJob, steps: Iterator[Step], pace: float) -> None:
    """Do the work step by step. Each takes milliseconds; longer ones would need a thread."""
    before = 0.0
    for step in steps:
        await job.progress(100 * step.done, step.file)
        await asyncio.sleep(pace * (step.done - before))
        before = step.done


def place(output: Path, name: str) -> Path:
    """Return the file of that name in the output folder; owners choose names, not folders."""
    if name != Path(name).name:
        raise ValueError(f"{name!r} is not the plain name of a file")
    return output / name


def asset(asset_type: str, file: Path) -> Asset:
    return Asset(asset_type, storage_path=file.name, file_size=file.stat().st_size)
