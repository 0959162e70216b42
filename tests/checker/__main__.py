"""Runs the history checker: load, injected failures, and the judgement afterwards.

python -m tests.checker [--duration SECONDS] [--seed N] [--servers N] [--sqlite]
"""

import argparse
import logging
import random
import sys
from pathlib import Path

import uvloop

from tests.checker.faults import KINDS
from tests.checker.judge.validate import judge
from tests.checker.load import Size
from tests.checker.run import Options, run
from tests.checker.summary import LEAST_RATE, describe, summarize


def main() -> int:
    """Return 0 where every promise was kept under a load with every update and call, else 1."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--duration", type=float, default=120.0, help="seconds of load")
    parser.add_argument("--seed", type=int, help="decides what happens; default: by chance")
    parser.add_argument("--rate", type=float, default=Size().rate, help="changes a second")
    parser.add_argument("--feed", choices=("notify", "poll"), default="notify")
    parser.add_argument("--servers", type=int, default=3, help="over one PostgreSQL; default: 3")
    parser.add_argument(
        "--only", action="append", choices=KINDS, help="break only this; may be repeated"
    )
    parser.add_argument("--sqlite", action="store_true", help="one server with SQLite")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the servers' logs there")
    arguments = parser.parse_args()
    # The library's workers warn of each lost connection.
    logging.getLogger("jobledger").addHandler(logging.NullHandler())
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    _tell(f"seed {seed}")
    options = Options(
        seed=seed,
        duration=arguments.duration,
        size=Size(rate=arguments.rate),
        server_arguments=("--feed", arguments.feed),
        servers=arguments.servers,
        faults=arguments.only or KINDS,
        sqlite=arguments.sqlite,
        logs=arguments.logs,
    )
    history = uvloop.run(run(options))
    summary, violations = summarize(history), judge(history)
    _tell(describe(summary, violations))
    if summary.void:
        _tell(f"VOID: fewer than {LEAST_RATE:.0f} changes/s")
    left_out = summary.unused or summary.not_made
    return 1 if summary.void or left_out or any(violations.values()) else 0


def _tell(words: str) -> None:
    print(words, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
