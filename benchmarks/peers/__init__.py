"""The same lifecycle on Jobledger and on what people use instead; see docs/project/peers.md.

Needs the standard library only: the peers' own environment imports it too.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence

from benchmarks.load import Life

IN_FLIGHT_VARIABLE = "PEERS_IN_FLIGHT"


def in_flight() -> int:
    """Return how many jobs live at once, as the programs of clients are told."""
    return int(os.environ[IN_FLIGHT_VARIABLE])


def answer(live: Callable[[int], Sequence[Life]]) -> None:
    """Live as many `jobs` as each line of standard input says; write their `lives` as a line."""
    for line in sys.stdin:
        print(json.dumps({"lives": live(json.loads(line)["jobs"])}), flush=True)
