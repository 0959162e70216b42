"""Which jobs of a part of the feed are to be purged, where clocks were right and where not."""

import pytest

from jobledger_server.domain.job import Instant, JobId, Micros
from jobledger_server.domain.retention import End, purgeable

NOW, AGE = Instant(100), Micros(10)
FIRST = 8
"""The sequence number of the first change."""


def changes(times: str) -> list[End]:
    """Return changes with these times of ends, and `-` for those that are no end."""
    return [
        (seq, JobId(f"job-{seq}"), None if time == "-" else Instant(int(time)))
        for seq, time in enumerate(times.split(), start=FIRST)
    ]


@pytest.mark.parametrize(
    ("times", "old", "later", "through"),
    [
        ("", [], [], 7),
        ("- -", [], [], 9),
        ("80 - 89 90 -", [8, 10], [], 10),
        ("90 - 95 -", [], [], 7),
        ("- 90 91 - 80 92", [12], [9, 10], 12),  # a clock was fast at the first two
        ("101 - -", [], [8], 10),
        ("101 - 90", [], [8], 9),
        ("80 999 81 - 95 999", [8, 10], [9], 11),
        ("95 999 80", [10], [8, 9], 10),
    ],
)
def test_what_a_wrong_clock_dated_hides_no_other_job(
    times: str, old: list[int], later: list[int], through: int
) -> None:
    ends = changes(times)
    found = purgeable(ends, after=FIRST - 1, now=NOW, age=AGE, limit=5, scanned=len(ends))
    assert [int(job_id.removeprefix("job-")) for job_id in found.jobs] == old
    assert found.later == [(ends[seq - FIRST][2], f"job-{seq}") for seq in later]
    assert (found.through, found.before) == (through, NOW - AGE)
    waits = any(time is not None and time >= found.before for seq, _, time in ends if seq > through)
    assert found.more is not waits


def test_a_search_ends_before_the_job_that_is_one_too_many() -> None:
    found = purgeable(changes("80 - 95 81 - 96 82"), after=7, now=NOW, age=AGE, limit=2, scanned=9)
    assert (found.jobs, found.through, found.more) == (["job-8", "job-11"], 12, True)
    assert [job_id for _, job_id in found.later] == ["job-10"]
