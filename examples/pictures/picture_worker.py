"""Renders pictures: a job of type `picture` becomes a PNG file."""

import os
from dataclasses import dataclass
from pathlib import Path

from render import render

from jobledger import BlockingJob, Completed, Failed, Worker

FOLDER = Path(os.environ.get("PICTURES", "pictures"))
MAX_PIXELS = 4_000_000

worker = Worker(os.environ.get("JOBLEDGER_SERVER", "127.0.0.1:50051"), concurrency=2)


@dataclass
class Picture:
    """The parameters of a job; others are refused with the name of the field."""

    width: int = 320
    height: int = 200


@worker.handler(executor="process")
def picture(job: BlockingJob, params: Picture) -> Completed | Failed:
    """Render one picture."""
    if params.width * params.height > MAX_PIXELS:
        return Failed(f"more than {MAX_PIXELS} pixels", "TOO_LARGE")
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{job.id}-{job.attempt}.png"

    def on_row(row: int) -> None:
        job.progress(100 * row / params.height, f"row {row} of {params.height}")

    render(file, params.width, params.height, on_row)
    job.add_asset("image/png", storage_path=str(file), file_size=file.stat().st_size)
    return Completed({"file": file.name})


if __name__ == "__main__":
    worker.run_sync()
