"""The planted bugs fit the product as it is."""

import pytest

from tests.simulation.planted.bug import Bug
from tests.simulation.planting import PRODUCT


@pytest.mark.parametrize("bug", PRODUCT.values(), ids=list(PRODUCT))
def test_a_bug_can_be_planted(bug: Bug) -> None:
    compile(bug.source(), bug.module, "exec")
