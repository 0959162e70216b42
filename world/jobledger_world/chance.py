"""Chance that a seed decides, with a stream of its own for each purpose."""

import random


class Chance:
    """Streams of random numbers that follow from a seed.

    What one purpose draws does not change what another gets. So a run with a smaller plan differs
    from the whole one in nothing but what was left out.
    """

    def __init__(self, seed: int | str) -> None:
        self.seed = seed

    def of(self, purpose: str) -> random.Random:
        """Return a new stream for this purpose, always the same one."""
        return random.Random(f"{self.seed} {purpose}")  # noqa: S311
