"""What a fault leaves in the history that the checker judges by."""

import time

import pytest

from jobledger_world.world import World
from tests.checker.history import History
from tests.simulation.faults import Nemesis
from tests.simulation.plan import Fault


@pytest.mark.parametrize(("lasts", "expected"), [(3.0, []), (4.0, [(2.6, 5.0)])])
def test_of_stalls_that_overlap_an_outage_begins_where_the_first_has_ended(
    lasts: float, expected: list[tuple[float, float]]
) -> None:
    history = History()
    stalls = [
        Fault(at=at, kind="database stall", lasts=seconds, seed=1)
        for at, seconds in ((0.1, 2.0), (1.0, lasts))
    ]

    async def main(world: World) -> int:
        began = time.time_ns() // 1000
        await Nemesis(world, history).run(stalls, 6)
        return began

    began = World(1).run(main)
    found = [tuple((each - began) / 1e6 for each in outage) for outage in history.outages]
    assert found == [pytest.approx(each, abs=0.01) for each in expected]


def test_a_slow_network_and_a_slow_database_end_apart() -> None:
    both = [
        Fault(at=0.1, kind="slow network", lasts=0.5, seed=1),
        Fault(at=0.3, kind="database slow", lasts=2.0, seed=1),
        Fault(at=0.4, kind="slow network", lasts=1.0, seed=1),
    ]

    async def main(world: World) -> tuple[float, float]:
        await Nemesis(world, History()).run(both, 6)
        return world.network.slow, world.disk.slow

    assert World(1).run(main) == (0.0, 0.0)
