"""Measures what a restart is like for thousands of watches, and for everybody else meanwhile.

    python -m benchmarks.storm [--quick] [--json FILE] [--only DATABASE...] [--watches NUMBER]

The server is killed (SIGKILL), one job of each owner is changed through another
server, and then it is started again on the same port: every watch comes back within
100 ms, goes on where it was and is told what it missed. Beside what
it is like stands how it was before the storm.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.outcome import Report, publish
from benchmarks.processes import GENERATORS, BenchmarkError, Generator, all_do, resident_bytes
from benchmarks.report import Figure, percentiles
from benchmarks.storm_load import JOBS_EACH
from benchmarks.targets import DATABASES, Database, Server, new_database

CALLS = ("GetJob", "CreateJob")
CALLS_RATE = 50.0
"""Calls of each kind a second."""

CALM_SECONDS = 5.0
"""How long calls are made before each storm, to compare with."""

SETTLE_SECONDS = 1.0

MIB = 1024 * 1024


class Storm:
    """Opens the watches, half WatchJob and half WatchJobs, then ends the server time and again."""

    def __init__(
        self, database: Database, generators: Sequence[Generator], caller: Generator, *, owners: int
    ) -> None:
        self._database = database
        self._generators = generators
        self._caller = caller
        self._owners = owners // len(generators)
        self._server, self._other = (self._new_server(name) for name in ("server", "other"))
        self._codes: Counter[str] = Counter()
        self._calls = 0
        self._failed: Counter[str] = Counter()
        self._streams = 0
        self._figures: dict[str, Figure] = {}

    @property
    def figures(self) -> list[Figure]:
        return list(self._figures.values())

    @property
    def notes(self) -> list[str]:
        codes = {"CANCELLED": 0, **self._codes}
        watches = (
            f"{self._streams:,} streams were opened in the storms on {self._database.name}, every "
            f"watch was told all that it had missed, and nothing twice. Refused: {_listed(codes)}; "
            "what was refused was tried again."
        )
        failed = _listed(self._failed) or "none"
        calls = (
            f"{self._calls:,} other calls were made in the storms on {self._database.name}, one "
            f"try each. Failed: {failed}. Their ceiling, and that of the memory, is the same "
            "before the storm."
        )
        return [watches, calls]

    def prepare(self) -> None:
        """Make the jobs and open every watch."""
        _start(self._server)
        for number, generator in enumerate(self._generators):
            generator.begin(
                "hold", target=self._server.target, name=f"{number}", owners=self._owners
            )
        for generator in self._generators:
            self._refuse_cancelled(Counter(generator.end()["codes"]))
        time.sleep(SETTLE_SECONDS)

    def measure_round(self) -> None:
        self._begin_calls()
        time.sleep(CALM_SECONDS)
        calm = self._caller.do("end_calls")
        before = resident_bytes(self._server.pid)
        self._change_behind_their_backs()
        serving = _start(self._server)
        self._begin_calls()
        replies = all_do(self._generators, "come_back")
        storm = self._caller.do("end_calls")
        time.sleep(SETTLE_SECONDS)
        after = resident_bytes(self._server.pid)
        self._add_watches(replies, serving)
        self._add_calls(storm, calm)
        self._add("server's memory after it", "MiB", after / MIB, before / MIB)

    def close(self) -> None:
        self._server.kill()
        self._other.kill()

    def _new_server(self, _name: str) -> Server:
        return Server(self._database)

    def _begin_calls(self) -> None:
        self._caller.do("begin_calls", target=self._server.target, rate=CALLS_RATE)

    def _change_behind_their_backs(self) -> None:
        """End the server; have another one change what they watch."""
        self._server.kill()
        all_do(self._generators, "broken")
        _start(self._other)
        all_do(self._generators, "change_away", target=self._other.target)
        self._other.kill()

    def _add_watches(self, replies: Sequence[dict[str, Any]], serving: float) -> None:
        seconds = [one for reply in replies for one in reply["seconds"]]
        codes: Counter[str] = Counter()
        for reply in replies:
            codes.update(reply["codes"])
        self._refuse_cancelled(codes)
        self._codes.update(codes)
        self._streams += len(seconds) + codes.total()
        watches = f"{len(seconds):,} watches"
        last = max(reply["last"] for reply in replies) - serving
        synced = max(reply["synced"] for reply in replies) - serving
        self._add(f"{watches}: all served since SERVING", "s", last)
        self._add(f"{watches}: all told what they missed", "s", synced)
        for name, value in _percentiles(seconds).items():
            self._add(f"{watches}: first message, {name}", "ms", value)

    def _add_calls(self, storm: dict[str, Any], calm: dict[str, Any]) -> None:
        self._failed.update(storm["failed"])
        self._calls += sum(storm["failed"].values())
        for call in CALLS:
            during, ceiling = storm["seconds"][call], _percentiles(calm["seconds"][call])
            self._calls += len(during)
            for name, value in _percentiles(during).items():
                self._add(f"{call} meanwhile, {name}", "ms", value, ceiling[name])

    def _refuse_cancelled(self, codes: Counter[str]) -> None:
        """Raise BenchmarkError where the server turned anybody away for good."""
        if codes["CANCELLED"]:
            raise BenchmarkError(
                f"{codes['CANCELLED']} streams on {self._database.name} got CANCELLED"
            )

    def _add(self, name: str, unit: str, value: float, before: float | None = None) -> None:
        title = f"{name}, {self._database.name}"
        self._figures.setdefault(title, Figure(title, unit)).add(value, before)


def _start(server: Server) -> float:
    """Start a server; return when it was SERVING. Raises BenchmarkError."""
    server.start()
    return time.monotonic()


def _listed(codes: Mapping[str, int]) -> str:
    return ", ".join(f"{code} {number:,}" for code, number in codes.items())


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median, the 99th percentile and the greatest, in milliseconds."""
    p50, p99 = percentiles(seconds)
    return {"p50": p50, "p99": p99, "max": max(seconds) * 1e3}


def measure(names: Sequence[str], watches: int, rounds: int) -> Report:
    """Run the storms on each database. Raises BenchmarkError."""
    report = Report(ceiling="before")
    for name in names:
        with (
            tempfile.TemporaryDirectory(prefix="jobledger-bench-") as folder,
            ExitStack() as stack,
        ):
            database = stack.enter_context(new_database(name, Path(folder)))
            generators, caller = (
                [stack.enter_context(Generator("storm_load")) for _ in range(GENERATORS)],
                stack.enter_context(Generator("storm_load")),
            )
            owners = watches // (2 * JOBS_EACH)
            storm = Storm(database, generators, caller, owners=owners)
            stack.callback(storm.close)
            print(f"storm: opening {watches:,} watches on {name}", file=sys.stderr, flush=True)
            report.add(storm, rounds)
    return report


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,000 watches and one storm")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every round there too")
    parser.add_argument("--only", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--watches", type=int, metavar="NUMBER", help="default: 10,000")
    parser.add_argument("--rounds", type=int, metavar="NUMBER", help="storms; default: 3")
    arguments = parser.parse_args()
    watches = arguments.watches or (1_000 if arguments.quick else 10_000)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    begin = time.monotonic()
    try:
        report = measure(arguments.only, watches, rounds)
    except BenchmarkError as error:
        sys.exit(f"storm: {error}")
    publish(report, begin=begin, quick=arguments.quick, file=arguments.json)


if __name__ == "__main__":
    main()
