"""The lifecycle on Celery. As a module the worker's app; as a program the owners, who observe."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import Celery, Task

from benchmarks.load import (
    PARAMETERS,
    PERCENTS,
    Life,
    asset_url,
    result,
)
from benchmarks.peers import answer, in_flight

app = Celery("peers", broker=os.environ["PEERS_REDIS"], backend=os.environ["PEERS_REDIS"])
app.conf.update(task_track_started=True, broker_pool_limit=in_flight())


@app.task(bind=True, name="render")
def render(self: Task, parameters: dict[str, Any]) -> dict[str, float]:  # noqa: ARG001
    for percent in PERCENTS:
        meta = {"percent": percent, "message": f"step {percent}"}
        self.update_state(state="PROGRESS", meta=meta)
    asset = {"type": "image/png", "url": asset_url(self.request.id), "size": 1_234_567}
    self.update_state(state="PROGRESS", meta={**meta, "assets": [asset]})
    return result()


def live() -> Life:
    seen: set[int] = set()

    def observe(message: dict[str, Any]) -> None:
        if message["status"] == "PROGRESS":
            seen.add(message["result"]["percent"])

    returned = render.delay(PARAMETERS).get(on_message=observe)
    return returned["completed"], time.monotonic(), len(seen)


def main() -> None:
    # Threads that stay: each has its own connections, as Celery's backends are one a thread.
    with ThreadPoolExecutor(in_flight()) as threads:
        answer(lambda count: list(threads.map(lambda _: live(), range(count))))


if __name__ == "__main__":
    main()
