"""Asks the service, at any replica, until it answers: every try counts as one operation.

Not through the client library: its retries and its discarding of what was seen before
would hide what a server does wrong.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc import StatusCode
from grpc_status import rpc_status

from jobledger.internal.v1alpha1.webhook_delivery_service_pb2_grpc import (
    WebhookDeliveryServiceStub,
)
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.queue_service_pb2_grpc import QueueServiceStub
from jobledger.v1.webhook_service_pb2_grpc import WebhookServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.checker.facts import snapshot
from tests.checker.history import Operation, Outcome, Snapshot

TRY_SECONDS = 2.0
"""How long one try may take before another replica is asked."""

AVOID_SECONDS = 1.0
"""How long a replica that did not answer is left alone, if another one is there."""

UNANSWERED = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.CANCELLED,
        StatusCode.RESOURCE_EXHAUSTED,
    }
)

OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 300),
    # Connections of its own, so that what happens to one client is not what happens to all.
    ("grpc.use_local_subchannel_pool", 1),
)

Options = Sequence[tuple[str, Any]]
Connect = Callable[[str, Options], grpc.aio.Channel]
"""Returns a channel to a target, with options."""

SLOW_READER = (("grpc.http2.lookahead_bytes", 16_384), ("grpc.http2.bdp_probe", 0))
"""A small HTTP/2 buffer: the server soon notices that the client does not read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How it went: with a `response` if it was acknowledged, and a `reason` if it was refused."""

    sent: float
    answered: float
    outcome: Outcome
    response: Any = None
    tries: int = 1
    reason: str = ""

    @property
    def told(self) -> Snapshot | None:
        """The job that came with the response."""
        return None if self.response is None else snapshot(self.response.job)

    def operation(self, rpc: str, **facts: Any) -> Operation:
        """Return what was asked for, with the facts that this does not know."""
        return Operation(rpc, self.sent, self.answered, self.outcome, **facts)


class Replicas:
    """A client's channels to all replicas, and which of them are worth a try."""

    def __init__(
        self,
        targets: Sequence[str],
        rng: random.Random,
        refusals: Counter[str],
        answered: Counter[str],
        options: Options = (),
        *,
        connect: Connect,
        token: str = "",
    ) -> None:
        self._rng = rng
        self.token = token
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.refusals = refusals
        self.answered = answered
        self._channels = [connect(target, [*OPTIONS, *options]) for target in targets]
        services = (
            JobServiceStub,
            WorkerServiceStub,
            QueueServiceStub,
            WebhookServiceStub,
            WebhookDeliveryServiceStub,
        )
        self._stubs = [[stub(channel) for stub in services] for channel in self._channels]
        self._avoided = [0.0] * len(targets)

    def choose(self) -> int:
        """Return the number of a replica: any that is not avoided, else any."""
        now = time.monotonic()
        good = [number for number, until in enumerate(self._avoided) if until <= now]
        return self._rng.choice(good or range(len(self._stubs)))

    def avoid(self, replica: int) -> None:
        self._avoided[replica] = time.monotonic() + AVOID_SECONDS

    def method(self, replica: int, rpc: str) -> Any:
        stubs = self._stubs[replica]
        method = next(getattr(stub, rpc) for stub in stubs if hasattr(stub, rpc))
        return partial(method, metadata=self._metadata) if self.token else method

    async def ask(
        self, rpc: str, request: Any, *, patience: float = 30.0, wait: float = 0.0
    ) -> Answer:
        """Ask until there is an answer, or for `patience` seconds.

        `wait` is how long the service itself may take on purpose. A refusal after a
        try that was not answered says nothing of that one: the outcome is unknown.
        """
        sent = time.monotonic()
        tries = 0
        while True:
            tries += 1
            replica = self.choose()
            try:
                response = await self.method(replica, rpc)(request, timeout=TRY_SECONDS + wait)
            except grpc.aio.AioRpcError as error:
                now = time.monotonic()
                info = info_of(error)
                reason = str(info.reason)
                self.refusals[f"{rpc} {error.code().name} {reason}".rstrip()] += 1
                # With no reason it does not come from the service but from what is in between.
                unanswered = error.code() in UNANSWERED and reason != "CONCURRENCY_LIMIT"
                # Of this request: it is too much, and will be.
                unanswered &= info.metadata["scope"] != "request"
                if not unanswered and reason not in ("", "INTERNAL"):
                    outcome = Outcome.REFUSED if tries == 1 else Outcome.UNKNOWN
                    return Answer(sent, now, outcome, tries=tries, reason=reason)
                self.avoid(replica)
                if now - sent > patience:
                    return Answer(sent, now, Outcome.UNKNOWN, tries=tries)
                await asyncio.sleep(self._rng.uniform(0.01, 0.1))
            else:
                self.answered[rpc] += 1
                return Answer(sent, time.monotonic(), Outcome.ACKNOWLEDGED, response, tries)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


def reason_of(error: grpc.RpcError) -> str:
    """Return the service's reason; empty where the error is not the service's."""
    return str(info_of(error).reason)


def info_of(error: grpc.RpcError) -> Any:
    """Return what the service says of an error; an empty message where that is not its own."""
    info = error_details_pb2.ErrorInfo()
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # its code was changed on the way
        return info
    for packed in status.details if status is not None else ():
        if packed.Unpack(info):
            break
    return info
