"""What shows that a promise is held: a break of the product, and the test that fails by it."""

from typing import NamedTuple

from tests.simulation.planted import postgresql
from tests.simulation.planted.bug import Bug
from tests.simulation.planting import PRODUCT


class Entry(NamedTuple):
    """A break of one promise, and the id of the test that fails by it."""

    bug: Bug
    test: str


def planted(name: str) -> Bug:
    """Return a bug that the simulation, or the load on PostgreSQL, has to find too."""
    return PRODUCT[name] if name in PRODUCT else postgresql.BUGS[name]
