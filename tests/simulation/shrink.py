"""Makes a plan that fails small: less load, fewer faults, then fewer knobs, each while it fails."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.simulation.plan import Plan
from tests.simulation.simulate import Result, simulate

SALTS = 4
"""Runs of the same plan that are tried: what is left out of a plan shifts all the rest."""

MAPPINGS = ("tuning", "settings", "network", "disk", "load")

SHORTER = (1 / 8, 1 / 4, 1 / 2, 3 / 4)


class Shrinker:
    """Looks for a small plan that breaks one of the promises that a plan has broken.

    Args:
        result: Of the plan.
        run: Runs a plan.

    Attributes:
        smallest: The smallest one so far, with what came of it.
        runs: How many plans were run.
    """

    def __init__(self, result: Result, run: Callable[[Plan], Result] = simulate) -> None:
        self.smallest = result
        self.runs = 0
        self._promises = frozenset(result.broken)
        self._run = run

    @property
    def _plan(self) -> Plan:
        return self.smallest.plan

    def shrink(self) -> Result:
        """Return the smallest plan that was found, with what came of it."""
        self._shorten()
        self._drop_faults()
        for name in MAPPINGS:
            self._turn_back(name)
        for name in ("shuffle", "busy"):
            if getattr(self._plan, name):
                self._try(replace(self._plan, **{name: 0.0}))
        if self._plan.access:
            self._try(replace(self._plan, access=False))
        for servers in range(1, self._plan.servers):
            if self._try(replace(self._plan, servers=servers)):
                break
        self._shorten()
        return self.smallest

    def _try(self, plan: Plan) -> bool:
        for salt in dict.fromkeys((self._plan.salt, *range(SALTS))):
            self.runs += 1
            result = self._run(replace(plan, salt=salt))
            if self._promises & result.broken.keys():
                self.smallest = result
                return True
        return False

    def _shorten(self) -> None:
        seconds = self._plan.seconds
        for shorter in SHORTER:
            if self._try(self._plan.shortened(round(seconds * shorter, 3))):
                return

    def _drop_faults(self) -> None:
        """Leave out half of the faults, then quarters, down to one at a time."""
        size = len(self._plan.faults)
        while size:
            at = 0
            while at < len(faults := self._plan.faults):
                if not self._try(replace(self._plan, faults=faults[:at] + faults[at + size :])):
                    at += size
            size //= 2

    def _turn_back(self, name: str) -> None:
        """Take the product's own value for all of the knobs, else for one after the other."""
        knobs = getattr(self._plan, name)
        if not knobs or self._try(replace(self._plan, **{name: {}})):
            return
        for knob in knobs:
            rest = {key: value for key, value in knobs.items() if key != knob}
            if self._try(replace(self._plan, **{name: rest})):
                knobs = rest


def describe(plan: Plan) -> str:
    """Return what a plan is in a line."""
    parts = [f"{plan.store}, {plan.servers} servers, {plan.seconds:g} s of load"]
    parts.append(f"{len(plan.faults)} faults")
    parts += [f"{name} {_listed(getattr(plan, name))}" for name in MAPPINGS if getattr(plan, name)]
    parts += [
        f"{name} {getattr(plan, name)}" for name in ("shuffle", "busy") if getattr(plan, name)
    ]
    if plan.salt:
        parts.append(f"salt {plan.salt}")
    return "; ".join(parts)


def _listed(knobs: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in knobs.items())
