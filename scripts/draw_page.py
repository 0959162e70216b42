"""Draws the page for the docs: runs a server, a gateway and some jobs, and takes pictures.

The pictures are `docs/guides/page-*.png`. Needs Debian's chromium.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.sync_api import Browser, sync_playwright

from jobledger import Asset, Client, RetryPolicy
from jobledger.testing import local_server

PICTURES = Path(__file__).resolve().parents[1] / "docs/guides"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-component-update"]
LIST, JOB = ".type.paused", ".timeline li:nth-child(3)"


class Picture(NamedTuple):
    """What is drawn: its name, what has to be there first, and how the browser is set."""

    name: str
    shows: str
    scheme: Literal["light", "dark"]
    width: int = 1280
    height: int = 720


DRAWN = (
    Picture("list", LIST, "light"),
    Picture("job", JOB, "dark"),
    Picture("phone", JOB, "light", 390, 780),
)


@contextmanager
def gateway(target: str, log: Path) -> Iterator[str]:
    """Run a gateway; yield its address."""
    program = str(Path(sys.executable).with_name("jobledger-gateway"))
    command = [program, "--target", target, "--listen", "127.0.0.1:0"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file)
    try:
        while process.poll() is None:
            if match := re.search(r'"serving", "url": "(\S+)"', log.read_text()):
                yield match[1]
                break
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait()


def seed(client: Client) -> str:
    """Make jobs in all states; return the id of one that waits for its next attempt."""
    done = "https://files.example/orders.csv"
    for number in range(9):
        client.create_job("export", {"table": "orders"}, user_id="grace", labels={"team": "sales"})
        (job,) = client.claim_jobs(["export"])
        assets = [Asset("text/csv", url=done, file_size=48_120)]
        client.mark_completed(job.id, {"rows": 2310}, assets=assets, attempt=job.attempt)
        client.create_job("import", {"file": f"orders-{number}.csv"}, user_id="ada")
        (job,) = client.claim_jobs(["import"])
        if number % 3 == 0:
            reason = ("BAD_ROW", "SOURCE_GONE")[number % 2]
            client.mark_failed(
                job.id, "row 40312: no such customer", reason=reason, attempt=job.attempt
            )
        else:
            client.mark_completed(job.id, attempt=job.attempt)
    policy = RetryPolicy(max_attempts=5, initial_backoff=90)
    parameters = {
        "scene": "harbour.blend",
        "frames": {"from": 1, "to": 240},
        "size": [1920, 1080],
        "camera": "main",
        "denoise": True,
    }
    labels = {"project": "harbour", "team": "blue"}
    client.create_job("render", parameters, user_id="ada", labels=labels, retry_policy=policy)
    (waiting,) = client.claim_jobs(["render"], worker_id="render-7")
    client.update_progress(
        waiting.id, 41, progress_message="frame 98 of 240", attempt=waiting.attempt
    )
    client.mark_failed(
        waiting.id, "the GPU has no memory left", reason="OUT_OF_MEMORY", retryable=True,
        attempt=waiting.attempt,
    )  # fmt: skip
    for progress, message in ((12, "frame 29 of 240"), (38, "frame 91 of 240"), (74, "frame 178")):
        client.create_job("render", parameters, user_id="ada", labels=labels, retry_policy=policy)
        (job,) = client.claim_jobs(["render"], worker_id="render-3", lease_duration=3600)
        client.update_progress(job.id, progress, progress_message=message, attempt=job.attempt)
    later = datetime.now(UTC) + timedelta(minutes=40)
    client.create_job("report", user_id="grace", schedule_time=later, labels={"team": "sales"})
    for owner in ("ada", "grace", "edsger"):
        client.create_job("transcode", {"file": "talk.mov"}, user_id=owner)
    client.admin.pause_job_type("transcode", "the new codec is being installed")
    return waiting.id


def draw(browser: Browser, url: str, picture: Picture) -> None:
    """Take one picture."""
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme=picture.scheme,
        reduced_motion="reduce",
        locale="en-GB",
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(".link-state.live")
    page.wait_for_selector(picture.shows)
    page.screenshot(path=PICTURES / f"page-{picture.name}.png")
    context.close()


def main() -> None:
    """Take the pictures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        local_server(Path(folder)) as server,
        gateway(server.target, Path(folder) / "gateway.log") as url,
        sync_playwright() as playwright,
        Client(server.target, user_id="ada") as client,
    ):
        waiting = seed(client)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for picture in DRAWN:
            path = f"jobs/{waiting}?user_id=ada" if picture.shows == JOB else ""
            draw(browser, f"{url}/{path}", picture)
        browser.close()


if __name__ == "__main__":
    main()
