"""The same lifecycle on Jobledger and on what people use instead; see docs/project/peers.md.

Needs the standard library only: the peers' own environment imports it too.
"""

import json
import sys
from collections.abc import Callable, Sequence

from benchmarks.load import Life


def answer(live: Callable[[int], Sequence[Life]]) -> None:
    """Live as many `jobs` as each line of standard input says; write their `lives` as a line."""
    for line in sys.stdin:
        print(json.dumps({"lives": live(json.loads(line)["jobs"])}), flush=True)
