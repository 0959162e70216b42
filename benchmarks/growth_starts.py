"""How long the server takes from its start until it serves, beside few jobs and many."""

import time

from benchmarks.growth_subjects import Sized
from benchmarks.report import Figure
from benchmarks.subjects import serving_on


class GrowthStarts:
    """Starts a server on the small database, then one on the large, each alone."""

    def __init__(self, small: Sized, large: Sized) -> None:
        self._small = small
        self._large = large
        self._figure = Figure(f"start of the server to SERVING, {large.database.name}", "ms")

    @property
    def figures(self) -> list[Figure]:
        return [self._figure]

    notes: tuple[str, ...] = ()

    def prepare(self) -> None:
        _start(self._small)

    def measure_round(self) -> None:
        small = _start(self._small)
        self._figure.add(_start(self._large), small)


def _start(sized: Sized) -> float:
    """Return the milliseconds until it serves."""
    begin = time.monotonic()
    with serving_on(sized.database):
        return (time.monotonic() - begin) * 1e3
