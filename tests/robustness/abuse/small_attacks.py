"""Attacks that harm nobody, for the tests of the harness."""

import time
from collections.abc import Mapping

from tests.robustness.abuse.attacker import begin, parent_waits, wait_for_parent


def waiting(target: str, *, word: str) -> Mapping[str, object]:
    begin()
    wait_for_parent()
    return {"target": target, "word": word}


def polling(target: str) -> Mapping[str, object]:
    begin()
    rounds = 0
    while parent_waits():
        rounds += 1
        time.sleep(0.001)
    return {"rounds": rounds}


def failing(target: str) -> None:
    raise OSError(target)
