"""What servers did under load, as figures: each beside what the bare server did meanwhile."""

import statistics
from collections.abc import Sequence

from benchmarks.gauge import Reading
from benchmarks.report import Figure


class Comparisons:
    """Keeps the figures of a scenario: rates first, then what they cost."""

    def __init__(self) -> None:
        self._figures: dict[str, Figure] = {}

    @property
    def figures(self) -> list[Figure]:
        return sorted(self._figures.values(), key=lambda figure: not figure.more_is_better)

    def keep(self, figure: Figure) -> Figure:
        """Return the figure of this name that is kept, or keep this one."""
        return self._figures.setdefault(figure.name, figure)

    def add(
        self,
        title: str,
        unit: str,
        ours: Reading,
        ceilings: Sequence[Reading],
        *,
        bar: float | None,
        each: int = 1,
    ) -> None:
        """Add a round of what counts in `unit`, so many `each` call.

        It is compared with the mean of what the bare server did before and after.
        """
        rate = Figure(title, f"{unit}s/s", more_is_better=True, bar=bar)
        self.keep(rate).add(ours.rate * each, statistics.mean(c.rate for c in ceilings))
        cpu = statistics.mean(c.server_cpu for c in ceilings)
        server = Figure(f"{title}: server CPU", f"µs/{unit}")
        self.keep(server).add(ours.server_cpu / each, cpu)
        if ours.database_cpu is not None:
            database = Figure(f"{title}: database CPU", f"µs/{unit}")
            self.keep(database).add(ours.database_cpu / each, cpu)
