"""h2load, where it is installed: a load generator in C, to see whether ours is a limit.

It comes with nghttp2 and sends the same request always. So it can tell what the no-op
reaches, but neither create jobs with a `request_id` each nor read one job after the
other: reads of one job that arrive together are one read.
"""

import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.processes import BenchmarkError

CONNECTIONS = 2


def is_installed() -> bool:
    return shutil.which("h2load") is not None


def call_rate(
    target: str,
    path: str,
    request: bytes,
    folder: Path,
    *,
    in_flight: int,
    warm_up: float,
    seconds: float,
) -> float:
    """Return how many calls a second it makes. Raises BenchmarkError."""
    body = folder / "h2load-body"
    body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
    command = [
        "h2load",
        f"--clients={CONNECTIONS}",
        f"--max-concurrent-streams={in_flight // CONNECTIONS}",
        f"--warm-up-time={_milliseconds(warm_up)}",
        f"--duration={_milliseconds(seconds)}",
        f"--data={body}",
        "--header=content-type: application/grpc",
        "--header=te: trailers",
        f"http://{target}{path}",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    rate = re.search(r"^finished in [^,]+, ([\d.]+) req/s", done.stdout, re.MULTILINE)
    failed = re.search(r"(\d+) failed, (\d+) errored", done.stdout)
    if not rate or not failed or failed.groups() != ("0", "0"):
        raise BenchmarkError(f"h2load failed:\n{done.stdout}{done.stderr}")
    return float(rate[1])


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"
