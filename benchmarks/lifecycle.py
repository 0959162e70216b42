"""Measures whole lifecycles of jobs: created, claimed, reported on, completed, watched throughout.

    python -m benchmarks.lifecycle [--quick] [--json FILE] [--only DATABASE...]

docs/performance.md says what is measured, and how to read it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.etcd_server import has_etcd, serving_etcd
from benchmarks.lifecycle_rounds import Lifecycles, Servers
from benchmarks.outcome import Report, publish
from benchmarks.processes import GENERATORS, BareServer, BenchmarkError, Generator
from benchmarks.subjects import DATABASES, serving
from jobledger_server.grpc_environment import GRPC_ENVIRONMENT


@dataclass(frozen=True)
class Size:
    """How much is done; more is slower and steadier."""

    rounds: int
    lifecycles: int


FULL = Size(rounds=5, lifecycles=1_000)
QUICK = Size(rounds=2, lifecycles=400)


def measure(databases: Sequence[str], size: Size) -> Report:
    """Live through the jobs of all rounds. Raises BenchmarkError."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="jobledger-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        print("lifecycle: starting the servers and the generators", file=sys.stderr, flush=True)
        servers = Servers(
            bare=stack.enter_context(
                BareServer(program="bare_lives", environment=GRPC_ENVIRONMENT)
            ),
            subjects=[stack.enter_context(serving(database, folder)) for database in databases],
            etcd=stack.enter_context(serving_etcd(folder)) if has_etcd() else None,
        )
        owners, workers = (
            stack.enter_context(Generator("lifecycle_load")) for _ in range(GENERATORS)
        )
        putters = (
            [stack.enter_context(Generator("etcd_load")) for _ in range(GENERATORS)]
            if servers.etcd
            else []
        )
        lifecycles = Lifecycles(
            servers, owners, workers, putters, folder=folder, lifecycles=size.lifecycles
        )
        report.add(lifecycles, size.rounds)
    return report


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in 30 s")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every round there too")
    parser.add_argument("--only", nargs="+", choices=DATABASES, default=DATABASES)
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    begin = time.monotonic()
    try:
        report = measure(arguments.only, size)
    except BenchmarkError as error:
        sys.exit(f"lifecycle: {error}")
    publish(report, begin=begin, quick=arguments.quick, file=arguments.json)


if __name__ == "__main__":
    main()
