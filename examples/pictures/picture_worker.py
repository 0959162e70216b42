"""Renders pictures: a job of type `picture` becomes a PNG file."""

import os
from pathlib import Path

from picture_task import Picture, Rendered, picture
from render import render

from jobledger import BlockingJob, Failed, Worker

FOLDER = Path(os.environ.get("PICTURES", "pictures"))
MAX_PIXELS = 4_000_000

worker = Worker(os.environ.get("JOBLEDGER_SERVER", "127.0.0.1:50051"), concurrency=2)


@worker.handler(picture, executor="process")
def render_picture(job: BlockingJob, params: Picture) -> Rendered | Failed:
    """Render one picture."""
    if params.width * params.height > MAX_PIXELS:
        return Failed(f"more than {MAX_PIXELS} pixels", "TOO_LARGE")
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{job.id}-{job.attempt}.png"

    def on_row(row: int) -> None:
        job.progress(100 * row / params.height, f"row {row} of {params.height}")

    render(file, params.width, params.height, on_row)
    job.add_asset("image/png", storage_path=str(file), file_size=file.stat().st_size)
    return Rendered(file.name)


if __name__ == "__main__":
    worker.run_sync()
