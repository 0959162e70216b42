"""See Jobledger at work: a server, a worker of three jobs at once, and a watcher for each job.

The worker packs this repository's own files. One job ends PARTIAL, because a file that
it names does not exist; one FAILED, because its archive was cut off on the way. At the
end the server is asked what happened, and its answers are compared with the files.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from live_view import Show, live_view, title
from pack_worker import pack_worker
from packing import sha256

from jobledger import Asset, AsyncClient, Job
from jobledger.testing import ServerFailed, local_server

REPOSITORY = Path(__file__).resolve().parent.parent
USER = "ada"
AT_ONCE = 3

# Seconds over which each job spreads its work. Packing these files alone takes too short
# a time to watch.
PACE = 2.5

# Seconds after which something is wrong: a demo ends by itself.
LIMIT = 50.0

ARCHIVES = {
    "client.tar.gz": ["client"],
    "server.tar.gz": ["server"],
    "contract.tar.gz": ["protos", "generated"],
    # There is no handbook.
    "papers.tar.gz": ["README.md", "CHANGELOG.md", "LICENSE", "docs", "docs/handbook.pdf"],
}

EXPECTED = {
    "pack client.tar.gz": "COMPLETED",
    "pack server.tar.gz": "COMPLETED",
    "pack contract.tar.gz": "COMPLETED",
    "pack papers.tar.gz": "PARTIAL",
    "verify client.tar.gz": "COMPLETED",
    "verify client-cut.tar.gz": "FAILED",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="a new folder, in which the database, the log and the files are kept",
    )
    output: Path | None = parser.parse_args().output
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        parser.error(f"{output} exists already")
    # Whatever ends it early ends it like Ctrl-C, which leaves nothing behind. Where it was
    # started in the background, Ctrl-C would be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    began = time.monotonic()
    try:
        with open_folder(output) as folder, local_server(folder) as server:
            print(f"A server at {server.target}, with its database in {folder}\n")
            problems = asyncio.run(asyncio.wait_for(demo(server.target, folder), LIMIT))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ServerFailed, TimeoutError) as error:
        problems = [str(error) or f"not done after {LIMIT:.0f} seconds"]
    for problem in problems:
        print(f"WRONG: {problem}", file=sys.stderr)
    if problems:
        return 1
    print(f"All as it should be, after {time.monotonic() - began:.0f} seconds.")
    if output is not None:
        print(f"Kept in {output}. To verify an archive in files/, unpack it")
        print("and run `sha256sum --check` on its manifest there.")
    return 0


@contextmanager
def open_folder(output: Path | None) -> Iterator[Path]:
    """Make the folder that is asked for, or one that is gone afterwards."""
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        yield output.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="jobledger-demo-") as folder:
            yield Path(folder)


async def demo(address: str, folder: Path) -> list[str]:
    """Have all jobs done, print what became of them, and return what is wrong."""
    files = folder / "files"
    files.mkdir()
    async with (
        AsyncClient(address, user_id=USER) as owner,
        AsyncClient(address) as hands,
        asyncio.TaskGroup() as group,
    ):
        worker = pack_worker(hands, REPOSITORY, files, concurrency=AT_ONCE, pace=PACE)
        group.create_task(worker.run(signals=False))
        job_ids = await order_and_watch(owner, files)
        worker.stop()
        print("\nWhat the server says of each job:")
        return [problem for job_id in job_ids for problem in await tell(owner, job_id, files)]


async def order_and_watch(owner: AsyncClient, files: Path) -> list[str]:
    """Create the jobs and watch them all to their ends."""
    job_ids: list[str] = []
    with live_view() as show:
        async with asyncio.TaskGroup() as watches:

            async def order(job_type: str, **parameters: object) -> str:
                job = await owner.create_job(job_type, parameters)
                watches.create_task(watch(owner, job.id, show))
                job_ids.append(job.id)
                return job.id

            packs = {
                archive: await order("pack", archive=archive, sources=sources)
                for archive, sources in ARCHIVES.items()
            }
            await owner.wait(packs["client.tar.gz"])
            await order("verify", archive="client.tar.gz", manifest="client.sha256")
            # As an upload leaves it whose connection broke.
            whole = (files / "client.tar.gz").read_bytes()
            (files / "client-cut.tar.gz").write_bytes(whole[: len(whole) * 2 // 3])
            await order("verify", archive="client-cut.tar.gz", manifest="client.sha256")
    return job_ids


async def watch(owner: AsyncClient, job_id: str, show: Show) -> None:
    async with owner.watch(job_id) as changes:
        async for change in changes:
            show(change)


async def tell(owner: AsyncClient, job_id: str, files: Path) -> list[str]:
    """Print a job with its transitions and assets, as the server has them, and check them."""
    job = await owner.get_job(job_id)
    print(f"\n{title(job)}  {job.status}  {job.id}")
    async for step in owner.list_transitions(job_id):
        time_of_day = step.time.strftime("%H:%M:%S.%f")[:-3]
        edge = f"{step.from_status:<10} -> {step.to_status:<10}"
        print(f"  {time_of_day}  {edge}  version {step.version:<3}  by {step.actor}")
    assets = [asset async for asset in owner.list_assets(job_id)]
    for asset in assets:
        print(f"  asset  {asset.storage_path:<18}  {asset.asset_type:<16}  {asset.file_size:>9,} B")
    if job.error is not None:
        print(f"  error  {job.error.reason}: {job.error.message}")
    return list(check(job, assets, files))


def check(job: Job, assets: list[Asset], files: Path) -> Iterator[str]:
    """Yield whatever about a job is not as it should be."""
    name = title(job)
    if job.status != EXPECTED[name]:
        yield f"{name} is {job.status}, not {EXPECTED[name]}"
    if len(assets) != (2 if job.job_type == "pack" else 0):
        yield f"{name} has {len(assets)} assets"
    hashes = (job.result or {}).get("sha256", {})
    for asset in assets:
        content = (files / asset.storage_path).read_bytes()
        if (len(content), sha256(content)) != (asset.file_size, hashes.get(asset.storage_path)):
            yield f"{name}: {asset.storage_path} is not the file that the server knows"


if __name__ == "__main__":
    sys.exit(main())
