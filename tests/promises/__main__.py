"""Breaks each promise of docs/concepts/guarantees.md, and sees its test fail."""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.promises.index import INDEX, WITHOUT, problems
from tests.promises.runs import with_break, without_breaks


def main() -> int:
    """Print what became of each break; return 0 if all were found."""
    parser = argparse.ArgumentParser(prog="make test-promises", description=__doc__)
    add = parser.add_argument
    add("promises", nargs="*", type=int, metavar="N", help="promises to break; default: all")
    add("--jobs", type=int, default=2, metavar="N", help="tests at the same time; default: 2")
    arguments = parser.parse_args()
    if wrong := problems():
        _tell("\n".join(wrong))
        return 1
    unknown = [each for each in arguments.promises if each not in INDEX]
    for number in unknown:
        _tell(f"{number}: {WITHOUT.get(number, 'there is no such promise')}")
    if unknown:
        return 1
    entries = {number: INDEX[number] for number in sorted(arguments.promises or INDEX)}
    tests = sorted({entry.test for entry in entries.values()})
    if failed := without_breaks(tests, jobs=arguments.jobs):
        _tell(f"{failed}\nA test fails without a break.")
        return 1
    _tell("| promise | what is broken | test | found |\n| --- | --- | --- | --- |")
    missed = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for (number, entry), run in zip(
            entries.items(), pool.map(with_break, entries.values()), strict=True
        ):
            missed += not run.found
            found = "found" if run.found else "NOT FOUND"
            _tell(f"| {number} | {entry.bug.what} | {entry.test} | {found}: {run.how} |")
    if not arguments.promises:
        for number, why in WITHOUT.items():
            _tell(f"| {number} | - | - | no break: {why} |")
    _tell(f"\n{missed} of {len(entries)} breaks were not found")
    return 1 if missed else 0


def _tell(words: str) -> None:
    print(words, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
