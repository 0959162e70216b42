"""The index of promises: what breaks each, and the test that fails then."""

import re
from collections.abc import Mapping
from itertools import chain

from tests.promises import calls, feed, groups, jobs, operation, output, queues
from tests.promises.entry import Entry
from tests.support.pages import ROOT

PAGE = ROOT / "docs/concepts/guarantees.md"

SECTIONS = (
    jobs.ENTRIES,
    feed.ENTRIES,
    calls.ENTRIES,
    operation.ENTRIES,
    queues.ENTRIES,
    groups.ENTRIES,
    output.ENTRIES,
)

INDEX: Mapping[int, Entry] = {
    number: entry for section in SECTIONS for number, entry in section.items()
}

WITHOUT: Mapping[int, str] = {
    4: "pg_dump, or SQLite's own backup, makes a dump: none of our code can make it inconsistent",
    42: "it is all other promises under load: `make simulate ARGS=--planted` breaks it by each bug",
    66: "gRPC and the proxy keep it, with the options and the configuration that are documented:"
    " `make test-exposed` and `make test-attacks` flood them",
}
"""Promises without a break, and why."""


def promises() -> list[int]:
    """Return the numbers of the page's promises, in its order."""
    return [int(number) for number in re.findall(r"^\*\*(\d+)\. ", PAGE.read_text(), re.MULTILINE)]


def problems() -> list[str]:
    """Return what is wrong with the index: what is missing, and breaks that fit no more."""
    page, listed = promises(), [*chain.from_iterable(SECTIONS), *WITHOUT]
    found = [f"{each} is twice in the page" for each in {*page} if page.count(each) > 1]
    found += [f"{each} is twice in the index" for each in {*listed} if listed.count(each) > 1]
    found += [f"{each} is not in the index" for each in page if each not in listed]
    found += [f"{each} is not in the page" for each in listed if each not in page]
    for number, entry in INDEX.items():
        try:
            compile(entry.bug.source(), entry.bug.module, "exec")
        except (SyntaxError, ValueError) as error:
            found.append(f"{number}: {error}")
    return found
