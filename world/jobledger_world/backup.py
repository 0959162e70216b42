"""See `Backup`."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup of a world's database, which can be restored more than once.

    Attributes:
        put_in_place: Replaces the database by it. `World.restore` does that with servers stopped.
    """

    put_in_place: Callable[[], None]
