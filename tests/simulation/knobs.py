"""Knobs: what a seed makes small, so that a short run comes to what only large servers meet.

The idea is FoundationDB's BUGGIFY, and the swarm's: not each run has all of it.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

Knobs = Mapping[str, Sequence[Any]]
"""Values by name, of the kinds that JSON has."""

TUNING: Knobs = {
    "tail_page": (2, 5, 1000),
    "tail_busy_seconds": (0.3,),
    "tail_idle_seconds": (0.1,),
    "woken_watches": (1, 3),
    "buffered_changes": (1, 5, 40),
    "buffered_bytes": (3000,),
    "early_changes": (1, 5),
    "fill_page": (2,),
    "feed_page": (1, 2, 7),
    "feed_readers": (1,),
    "feed_message_bytes": (1, 3000),
    "shared_messages": (1, 5),
    "woken_readers": (1, 2),
    "output_page": (1, 2, 5),
    "output_readers": (1,),
    "polled_streams": (1, 3),
    "output_poll_seconds": (0.2,),
    "output_buffer_bytes": (1, 5000),
    "command_batch": (1, 5),
    "command_batch_bytes": (1,),
    "waiting_command_bytes": (1, 300),
    "linger_ticks": (1,),
    "claim_batch": (1, 5),
    "claim_batch_bytes": (1, 1000),
    "planned_jobs": (1, 3),
    "passed_at_once": (1, 3),
    "passed_jobs": (1, 10),
    "read_batch": (1, 3),
    "full_read_batch": (1, 3),
    "unblocked_jobs": (1, 3),
    "unblocked_keys": (1,),
    "full_keys": (1,),
    "release_retry_seconds": (0.1,),
    "updates_per_turn": (1, 3),
    "unsent_results": (1, 3),
    "unsent_result_bytes": (1, 200),
    "renewals_per_lease": (2, 100),
    "claim_retry_seconds": (0.1,),
    "bulk_part": (1, 3),
    "bulk_part_bytes": (1,),
    "reap_batch": (1, 2),
    "promote_batch": (1, 3),
    "rechecked_keys": (1,),
    "awaited_types": (1,),
    "wake_seconds": (0.3,),
    "purge_seconds": (0.3,),
    "purge_search": (1, 5),
    "purge_batch": (1, 5),
    "purge_least": (1,),
    "later_purges": (1,),
    "compacted_deletions": (1, 3),
    "sweep_seconds": (0.3,),
    "sweep_step_seconds": (0.05,),
    "sweep_rows": (1, 3),
    "poller_seconds": (0.5,),
    "job_cache_bytes": (1, 5000),
    "list_step": (1, 3),
    "scanned_ends": (1, 10),
    "overdue_queues": (1,),
}
"""Of a server's `Tuning`: fields, and values that are far from theirs."""

SETTINGS: Knobs = {
    "max_watch_age": (0.7, 3.0),
    "retain_deletions": (0.5, 2.0, 10.0),
    "feed": ("poll",),
    "grace": (0.5, 3.0),
    "job_output": (1500, 3000, 20_000),
    "owner_output_rate": (10_000,),
    "output_rate": (20_000,),
}
"""Of the server, besides what each simulated server has."""

SHORT_STAY = [0.1, 1.0]

LEAST_RATE = 30.0

LEAST_WRITTEN = 0.1

LARGE_PIECE = 2_000

LOAD: Knobs = {
    "rate": (LEAST_RATE, 60.0, 90.0),
    "deleted": (0.05, 0.25, 0.9),
    "waits": (0.0, 0.3, 0.9),
    "deaths": (0.0, 0.03, 0.1),
    "abandoned": (0.0, 0.05, 0.3),
    "cancelled": (0.04, 0.4),
    "cancelled_within": (0.3, 0.03),
    "large": (0.0, 0.05),
    "go_back": (0.05, 0.2, 0.6),
    "job_stay": ([0.1, 2.0], [0.03, 0.3]),
    "stalls": (0.01, 0.2),
    "start_over": (0.0, 0.1, 0.4),
    "stay": (SHORT_STAY, [1.0, 8.0]),
    "lease": (1, 2, 5, 30, 120),
    "written": (LEAST_WRITTEN, 0.4, 0.8),
    "pieces": ([48, 200, 1500], [60], [48, 5000, 20_000]),
}

NETWORK: Knobs = {
    "latency": ([0.0002, 0.002], [0.0002, 0.03], [0.01, 0.1]),
    "duplicates": (0.0, 0.02),
    "window": (64 * 1024, 1024),
}

SLOW_DISK = [0.001, 0.15]

DISK: Knobs = {"latency": ([0.0002, 0.002], [0.0002, 0.03], SLOW_DISK)}

TURNED = (0.0, 0.15, 0.4, 0.8)
"""How many of the knobs of a server are turned: in some runs none, in some many."""


def turned(knobs: Knobs, rng: random.Random) -> dict[str, Any]:
    """Return values for some of the knobs."""
    part = rng.choice(TURNED)
    return {name: value for name, value in chosen(knobs, rng).items() if rng.random() < part}


def chosen(knobs: Knobs, rng: random.Random) -> dict[str, Any]:
    """Return a value for each of the knobs."""
    return {name: rng.choice(values) for name, values in knobs.items()}
