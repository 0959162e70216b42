"""Which failed calls a channel makes again, and when: gRPC's retry policies (gRFC A6)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc

from jobledger.testing.world.network.status import Status

JITTER = 0.2
"""gRPC's."""

PUSHBACK = "grpc-retry-pushback-ms"
"""What a server sends to say when, or whether, to come again."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The policy of a method. Times are in seconds."""

    max_attempts: int
    initial_backoff: float
    max_backoff: float
    multiplier: float
    codes: frozenset[grpc.StatusCode]


class Retries:
    """The attempts of one call.

    Args:
        policy: That of its method; without one there is one attempt.
        random: Spreads the pauses.

    Attributes:
        attempts: Those that have failed.
    """

    def __init__(self, policy: RetryPolicy | None, random: Random) -> None:
        self.attempts = 0
        self._policy, self._random = policy, random
        self._backoff = 0.0 if policy is None else policy.initial_backoff

    def pause(self, status: Status) -> float | None:
        """Return how long to wait after an attempt with this status; None if it was the last."""
        self.attempts += 1
        policy = self._policy
        if policy is None or self.attempts >= policy.max_attempts:
            return None
        if status.code not in policy.codes:
            return None
        asked = dict(status.trailing).get(PUSHBACK)
        if asked is not None:
            self._backoff = policy.initial_backoff
            return int(asked) / 1000 if asked.isdigit() else None
        pause = self._backoff * self._random.uniform(1 - JITTER, 1 + JITTER)
        self._backoff = min(self._backoff * policy.multiplier, policy.max_backoff)
        return pause


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
