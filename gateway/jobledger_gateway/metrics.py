"""All metrics of a gateway, each declared once; and the numbers that they are read from.

A process runs one gateway, so its numbers are one value, which whatever happens is counted in.
The table in docs/reference/metrics.md is made of the declarations.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from jobledger.core.metrics import Metric, MetricsCollector, metrics_page
from jobledger.core.status_server import serving_pages
from jobledger_gateway.followed_files import FollowedFiles

Backlog = Callable[[], Sequence[float]]
"""Returns when each delivery that is pending was tried first, in seconds since 1970."""


@dataclass(slots=True)
class Figures:
    """What a gateway counts.

    Attributes:
        streams: open event streams.
        max_streams: how many there may be.
        refused: requests that the gateway itself refused, by HTTP status.
        upstream_errors: calls and watches that the service refused or did not answer, by gRPC's
            code.
        deliveries: attempts to deliver by their outcome: `delivered`, `failed` or `given_up`.
        disabled: webhooks that this gateway has disabled.
        backlogs: those of the webhooks that this gateway holds.
        files: those that are read again when they change.
    """

    streams: int = 0
    max_streams: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    upstream_errors: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(
        default_factory=lambda: Counter({"delivered": 0, "failed": 0, "given_up": 0})
    )
    disabled: int = 0
    backlogs: dict[str, Backlog] = field(default_factory=dict)
    files: Sequence[FollowedFiles] = ()

    @contextmanager
    def holding(self, webhook_id: str, backlog: Backlog) -> Iterator[None]:
        """Count a webhook as held, with its backlog, during the block."""
        self.backlogs[webhook_id] = backlog
        try:
            yield
        finally:
            if self.backlogs.get(webhook_id) == backlog:
                del self.backlogs[webhook_id]

    def pending(self) -> int:
        """Return how many deliveries are pending."""
        return sum(len(backlog()) for backlog in self.backlogs.values())

    def oldest_pending(self) -> float:
        """Return since how many seconds the oldest delivery is pending; 0 if none is."""
        firsts = [first for backlog in self.backlogs.values() for first in backlog()]
        return max(0.0, time.time() - min(firsts)) if firsts else 0.0


FIGURES: Final = Figures()
"""Those of this process."""

METRICS: Final[tuple[Metric[Figures], ...]] = (
    Metric(
        "jobledger_gateway_streams",
        "gauge",
        "Open event streams.",
        (),
        lambda f: f.streams,
    ),
    Metric(
        "jobledger_gateway_streams_max",
        "gauge",
        "How many event streams may be open, by `--max-streams`.",
        (),
        lambda f: f.max_streams,
    ),
    Metric(
        "jobledger_gateway_refused_total",
        "counter",
        "Requests that the gateway itself refused, by the HTTP status: 429 and 503 for its limits, "
        "403 and 421 for foreign pages and names, 500 for bugs, others for mistakes of callers.",
        ("status",),
        lambda f: f.refused,
    ),
    Metric(
        "jobledger_gateway_upstream_errors_total",
        "counter",
        "Calls and watches that ended with an error of the service, or without an answer, by "
        "gRPC's code. Those for webhooks too.",
        ("code",),
        lambda f: f.upstream_errors,
    ),
    Metric(
        "jobledger_gateway_webhooks",
        "gauge",
        "Webhooks that this gateway delivers.",
        (),
        lambda f: len(f.backlogs),
    ),
    Metric(
        "jobledger_gateway_webhook_pending",
        "gauge",
        "Deliveries that have failed, or wait behind one that has, and will be tried again.",
        (),
        lambda f: f.pending(),
    ),
    Metric(
        "jobledger_gateway_webhook_oldest_pending_seconds",
        "gauge",
        "How long the oldest of them has been pending. 0 if none is.",
        (),
        lambda f: f.oldest_pending(),
    ),
    Metric(
        "jobledger_gateway_webhook_deliveries_total",
        "counter",
        "Attempts that were `delivered` or have `failed`, and deliveries that were `given_up`.",
        ("outcome",),
        lambda f: f.deliveries,
    ),
    Metric(
        "jobledger_gateway_webhooks_disabled_total",
        "counter",
        "Webhooks that this gateway has disabled.",
        (),
        lambda f: f.disabled,
    ),
    # Named as the server's, so that the same alerts cover them.
    Metric(
        "jobledger_reloads_failing",
        "gauge",
        "Whether they have changed and cannot be used: the `certificate` with its key, or the "
        "`service_credentials`, which are the files for the connection to the service. What they "
        "were before stays in use.",
        ("of",),
        lambda f: {each.name: each.fails for each in f.files},
    ),
    Metric(
        "jobledger_certificate_expiration_timestamp_seconds",
        "gauge",
        "When a certificate in use expires, in seconds since 1970: of the `server` (for browsers) "
        "and of the `client` (for the service) the first of its chain, of the `service_ca` the "
        "last of the CAs.",
        ("certificate",),
        lambda f: {name: end for each in f.files for name, end in each.expirations.items()},
    ),
)


@asynccontextmanager
async def serving_metrics(address: str | None) -> AsyncIterator[None]:
    """Serve `http://HOST:PORT/metrics` during the block, if there is an address.

    Raises OSError: nothing can be served there.
    """
    if address is None:
        yield
        return
    page = metrics_page(MetricsCollector(METRICS, FIGURES))
    async with serving_pages(address, {"/metrics": page}):
        yield
