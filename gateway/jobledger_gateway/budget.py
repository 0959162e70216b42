"""How much of something clients hold: in all, and from each address."""

import asyncio
import ipaddress
import random
import traceback
from collections import Counter
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Self

from starlette.types import Scope

from jobledger_gateway.limits import REFUSAL_SECONDS
from jobledger_gateway.problems import HttpProblem


def address_of(scope: Scope) -> str:
    """Return the address that a request counts for. Behind a trusted proxy it is the client's."""
    client = scope.get("client")
    return counted_address(client[0] if client else "")


@lru_cache(maxsize=10_000)
def counted_address(host: str) -> str:
    """Return an IPv4 address, also if it came over IPv6, or the /64 of an IPv6 address.

    One host can have all addresses of its /64.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))


SLOW: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


async def delay_refusal(problem: HttpProblem) -> None:
    """Delay the refusal of too much: clients that ask again at once would take all the time."""
    if problem.status in SLOW:
        # What was refused counts no more: the frames of the traceback must not keep it.
        traceback.clear_frames(problem.__traceback__)
        await asyncio.sleep(random.uniform(*REFUSAL_SECONDS))  # noqa: S311


class Budget:
    """Counts what clients hold, and refuses what is beyond the limits.

    Args:
        what: names it in the refusals, in the plural.
        in_all: how much all clients hold at most.
        of_one: how much one address holds at most.
        of: what an amount is counted for, if that is no address.
        retry_after: seconds after which a refused client may ask again.
    """

    def __init__(
        self, what: str, in_all: int, of_one: int, *, of: str = "address", retry_after: int = 1
    ) -> None:
        self._what = what
        self._one = of
        self._in_all = in_all
        self._of_one = of_one
        self._retry_after = {"Retry-After": str(retry_after)}
        self._of: Counter[str] = Counter()
        self.held = 0

    def take(self, address: str, amount: int = 1) -> None:
        """Count more for an address.

        Raises:
            HttpProblem: it would be too much. Nothing is counted.
        """
        if self._of[address] + amount > self._of_one:
            detail = f"this {self._one} has too many {self._what}"
            raise HttpProblem(429, detail, self._retry_after)
        if self.held + amount > self._in_all:
            raise HttpProblem(503, f"there are too many {self._what}", self._retry_after)
        self._of[address] += amount
        self.held += amount

    def give_back(self, address: str, amount: int = 1) -> None:
        """Count less for an address."""
        self.held -= amount
        self._of[address] -= amount
        if not self._of[address]:
            del self._of[address]

    def holding(self, address: str, amount: int = 0) -> "Holding":
        """Count an amount until the block of this context manager ends. It may change meanwhile.

        Raises:
            HttpProblem: it would be too much.
        """
        holding = Holding(self, address)
        holding.take(amount)
        return holding


class Holding:
    """What one request holds of a budget, until its block ends.

    Attributes:
        amount: how much that is.
    """

    __slots__ = ("_address", "_budget", "amount")

    def __init__(self, budget: Budget, address: str) -> None:
        self._budget = budget
        self._address = address
        self.amount = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back(self.amount)

    def take(self, amount: int) -> None:
        """Hold more. Raises HttpProblem: it would be too much."""
        self._budget.take(self._address, amount)
        self.amount += amount

    def become(self, amount: int) -> None:
        """Hold as much as this. Raises HttpProblem: it would be too much."""
        if amount > self.amount:
            self.take(amount - self.amount)
        else:
            self.give_back(self.amount - amount)

    def give_back(self, amount: int) -> None:
        """Hold less."""
        self._budget.give_back(self._address, amount)
        self.amount -= amount
