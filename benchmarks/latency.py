"""One caller: how long a durable call takes beyond one that does nothing."""

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import BareServer, Generator
from benchmarks.report import Figure, percentiles
from benchmarks.subjects import Subject

WARM_UP_CALLS = 50

BAR = 2.0
"""Milliseconds."""


class Latency:
    """Measures CreateJob, one call after the other, the no-op before each round."""

    def __init__(
        self,
        bare: BareServer,
        subjects: Sequence[Subject],
        caller: Generator,
        folder: Path,
        *,
        calls: int,
    ) -> None:
        self._bare = bare
        self._subjects = subjects
        self._caller = caller
        self._folder = folder
        self._calls = calls
        self._figures: dict[str, Figure] = {}
        self._syncs: list[float] = []

    @property
    def figures(self) -> list[Figure]:
        return list(self._figures.values())

    @property
    def notes(self) -> list[str]:
        sync = statistics.median(self._syncs)
        note = (
            f"Writing 4 KiB to the same disk and waiting until it is there took {sync:.2f} ms, "
            "which no durable call can be without."
        )
        return [note]

    def prepare(self) -> None:
        for target in (self._bare.target, *(subject.target for subject in self._subjects)):
            self._percentiles(target, WARM_UP_CALLS)

    def measure_round(self) -> None:
        self._syncs.append(_sync_milliseconds(self._folder))
        no_op, _ = self._percentiles(self._bare.target, self._calls)
        for subject in self._subjects:
            for name, took in zip(
                ("p50", "p99"), self._percentiles(subject.target, self._calls), strict=True
            ):
                title = f"CreateJob, one caller, {name}, {subject.database}"
                bar = BAR if name == "p50" else None
                figure = Figure(title, "ms beyond no-op's p50", bar=bar, bar_of="value")
                self._figures.setdefault(title, figure).add(took - no_op, no_op)

    def _percentiles(self, target: str, calls: int) -> tuple[float, float]:
        """Return the 50th and the 99th percentile in milliseconds."""
        reply = self._caller.do("latencies", target=target, operation="create", calls=calls)
        return percentiles(reply["seconds"])


def _sync_milliseconds(folder: Path) -> float:
    """Return the median time of appending 4 KiB to a file and having it on the disk."""
    took = []
    with (folder / "sync").open("ab", buffering=0) as file:
        for _ in range(50):
            begin = time.monotonic()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append(time.monotonic() - begin)
    return statistics.median(took) * 1000
