"""Breaks the product in small ways, and names what no test notices.

A mutant is the product with one small change: another comparison, a statement or an argument less,
a number that is one greater. The tests that run its line are run on it, until one fails. If none
does, no test holds what the line means, or the change means nothing.

Only SQLite is used, and only code that runs in the process of the tests counts.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.mutants.mutations import Mutant, mutants
from scripts.mutants.runs import ROOT, Copy, outcome, select

PACKAGES = {
    "domain": ("server/jobledger_server/domain",),
    "ledger": ("server/jobledger_server/ledger",),
    "watch": ("server/jobledger_server/watch",),
    "sql": ("server/jobledger_server/sql", "server/jobledger_server/sql/sqlite"),
    "client": ("client/jobledger/core",),
}
"""The folders of each package that is mutated, without those below them."""

WITH_CONNECTION = (
    *("calls.py", "channel.py", "channels.py", "heartbeats.py", "merging.py"),
    *("streams.py", "tokens.py"),
    *("work_opener.py", "work_stream.py"),
)
"""What of the client needs a server, and more time than these tests have."""

TESTS = ("tests/unit", "tests/integration", "tests/e2e/rpc")

NOTICED = ("killed", "timeout")
MISSED = ("survived", "untested")


def all_mutants() -> Iterator[tuple[str, Mutant]]:
    """Yield every mutant with its package."""
    for package, folders in PACKAGES.items():
        for folder in folders:
            for file in sorted((ROOT / folder).glob("*.py")):
                if package == "client" and file.name in WITH_CONNECTION:
                    continue
                for mutant in mutants(ROOT, str(file.relative_to(ROOT))):
                    yield package, mutant


def shown(mutant: Mutant) -> str:
    """Return a mutant in a line: where it is, and what changes."""
    before, after = mutant.before, mutant.after
    pairs = enumerate(zip(before, after, strict=False))
    same = next((at for at, (one, other) in pairs if one != other), 0)
    start, end = max(0, same - 40), same + 40
    change = f"{before[start:end]} -> {after[start:end]}".replace("\n", " ")
    return f"{mutant.path}:{max(mutant.lines)} {mutant.scope}: {change}"


def tried(sample: Sequence[Mutant], jobs: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield what happened to each mutant, and the test that noticed it."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        copies = [Copy(Path(folder, str(number)), seed) for number in range(jobs)]
        selection = select(copies[0], TESTS)

        def run(mutant: Mutant) -> tuple[str, str]:
            copy = copies.pop()
            try:
                return outcome(copy, mutant, selection)
            finally:
                copies.append(copy)

        yield from pool.map(run, sample)


def main() -> int:
    """Try the mutants, and count what happened by package."""
    parser = argparse.ArgumentParser(prog="python -m scripts.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=200, metavar="N", help="try N mutants")
    parser.add_argument("--seed", type=int, help="which ones; without it, a random one")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="of those with TEXT in their line"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="N at the same time")
    parser.add_argument("--output", type=Path, metavar="FILE", help="keep the outcomes in FILE")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="name what FILE says was killed"
    )
    arguments = parser.parse_args()
    seed: int = random.randrange(1000) if arguments.seed is None else arguments.seed
    found = [each for each in all_mutants() if arguments.only in shown(each[1])]
    sample = sorted(found, key=lambda each: each[1].rank(seed))[: arguments.sample]
    print(f"{len(sample)} of {len(found)} mutants; --seed {seed}", flush=True)
    earlier = {}
    if arguments.against:
        for line in arguments.against.read_text("utf-8").splitlines():
            earlier[json.loads(line)["mutant"]] = json.loads(line)

    counts: Counter[tuple[str, str]] = Counter()
    outcomes = tried([mutant for _, mutant in sample], arguments.jobs, seed)
    for (package, mutant), (what, test) in zip(sample, outcomes, strict=True):
        counts[package, what] += 1
        if arguments.output:
            facts = {"mutant": mutant.name, "package": package, "outcome": what, "test": test}
            with arguments.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(facts) + "\n")
        if what in MISSED:
            before = earlier.get(mutant.name, {})
            by = f" (killed by {before['test']})" if before.get("outcome") in NOTICED else ""
            print(f"{what}: {shown(mutant)}{by}", flush=True)

    for package in (*PACKAGES, "all"):
        of_package = {
            what: sum(n for (of, w), n in counts.items() if w == what and package in {of, "all"})
            for what in NOTICED + MISSED
        }
        print(f"{package:8}", *(f"{what} {number:4}" for what, number in of_package.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
