"""Which failed calls a channel makes again, and when: gRPC's retry policies (gRFC A6)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc

from jobledger.testing.world.network.status import Status

JITTER = 0.2


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The policy of a method. Times are in seconds."""

    max_attempts: int
    initial_backoff: float
    max_backoff: float
    multiplier: float
    codes: frozenset[grpc.StatusCode]

    def pause(self, attempts: int, status: Status, random: Random) -> float | None:
        """Return how long to wait before the next attempt, or None if there is none.

        Args:
            attempts: Those made so far.
            status: That of the last one.
            random: Spreads the pauses.
        """
        if attempts >= self.max_attempts or status.code not in self.codes:
            return None
        backoff = self.initial_backoff * self.multiplier ** (attempts - 1)
        return min(backoff, self.max_backoff) * random.uniform(1 - JITTER, 1 + JITTER)


def policies(service_config: str) -> Callable[[str], RetryPolicy | None]:
    """Return what finds the policy of a method, by its path."""
    found: dict[str, RetryPolicy | None] = {}
    for config in json.loads(service_config).get("methodConfig", ()):
        policy = _policy(config["retryPolicy"]) if "retryPolicy" in config else None
        for name in config["name"]:
            found[f"/{name['service']}/{name.get('method', '')}"] = policy

    def policy_of(method: str) -> RetryPolicy | None:
        # The more specific entry wins.
        return found.get(method, found.get(method[: method.rindex("/") + 1]))

    return policy_of


def _policy(config: Mapping[str, Any]) -> RetryPolicy:
    return RetryPolicy(
        max_attempts=min(config["maxAttempts"], 5),
        initial_backoff=float(config["initialBackoff"].rstrip("s")),
        max_backoff=float(config["maxBackoff"].rstrip("s")),
        multiplier=config["backoffMultiplier"],
        codes=frozenset(grpc.StatusCode[code] for code in config["retryableStatusCodes"]),
    )
