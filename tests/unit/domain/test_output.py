"""Output: who may append, where it goes, and what is dropped."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from jobledger_server.domain.commands import AppendOutput
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.errors import (
    DomainError,
    JobTerminal,
    LeaseLost,
    LimitExceeded,
    OutputGap,
)
from jobledger_server.domain.job import Instant, Job, Micros
from jobledger_server.domain.output import (
    LEAST_PIECE_BYTES,
    NO_TAILS,
    SLACK,
    OutputPiece,
    OutputTail,
    Tails,
    after_append,
    after_cut,
    cuts,
    merged,
)
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import (
    COMPLETED,
    HELD,
    JOB_ID,
    LEASE,
    NOW,
    QUEUED,
    RETRYING,
    SECOND,
    ids,
    job_in,
)

LOG: Tails = {"log": OutputTail(end=10, attempt=1, number=3, first=4, pieces=2)}


def append(
    job: Job, tails: Tails = NO_TAILS, now: Instant = NOW, most: int = 100, **fields: Any
) -> Decision:
    command = AppendOutput(job_id=JOB_ID, **{"attempt": 1, "data": b"abc", **fields})
    return decide(job, command, now=now, new_id=ids(), tails=tails, output_bytes=most)


def held(**fields: Any) -> Job:
    return replace(job_in(HELD), output_streams={"log": "text/plain"}, **fields)


def test_output_goes_to_the_end_of_its_stream_and_is_no_change_of_the_job() -> None:
    job = held()
    decision = append(job, LOG, stream="log", number=4)
    assert decision.output == OutputPiece(JOB_ID, "log", 10, 1, 4, b"abc")
    assert (decision.job, decision.changed, decision.renewed) == (job, False, False)
    assert decision.next_offset == 13


def test_the_first_append_to_a_stream_says_what_it_is_and_later_ones_leave_it() -> None:
    job = held()
    first = append(job, LOG, stream="x", content_type="image/png")
    assert first.output == OutputPiece(JOB_ID, "x", 0, 1, 0, b"abc")
    assert first.job == replace(job, output_streams={"log": "text/plain", "x": "image/png"})
    assert (first.changed, first.renewed, first.job.version) == (False, True, job.version)
    assert append(job, LOG, stream="log", content_type="image/png").job == job


@pytest.mark.parametrize(
    ("state", "fields", "error"),
    [
        (HELD, {"attempt": 2}, LeaseLost),
        (RETRYING, {}, LeaseLost),
        (COMPLETED, {}, JobTerminal),
        (QUEUED, {"attempt": 0}, DomainError),
    ],
)
def test_only_the_running_attempt_appends(state: Any, fields: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        append(job_in(state), **fields)


@pytest.mark.parametrize("state", [HELD, RETRYING, COMPLETED])
def test_a_retry_is_answered_whatever_became_of_the_job(state: Any) -> None:
    job = job_in(state)
    for number in (1, 3):
        decision = append(job, LOG, stream="log", number=number)
        assert decision == Decision(job=job, changed=False, next_offset=10)


@pytest.mark.parametrize(("attempt", "number", "expected"), [(1, 5, 4), (2, 2, 1), (2, 4, 1)])
def test_an_append_is_refused_whose_predecessor_is_not_stored(
    attempt: int, number: int, expected: int
) -> None:
    # Later the one before it would be taken for a repetition, and be lost.
    with pytest.raises(OutputGap) as refused:
        append(held(attempt=attempt), LOG, stream="log", attempt=attempt, number=number)
    gap = refused.value
    assert (gap.job_id, gap.stream, gap.number) == (JOB_ID, "log", expected)


def test_the_numbers_are_those_of_the_attempt() -> None:
    second = held(attempt=2)
    decision = append(second, LOG, stream="log", attempt=2, number=1)
    assert decision.output == OutputPiece(JOB_ID, "log", 10, 2, 1, b"abc")
    # Without a number it is appended, and the numbers before it stay known.
    assert append(held(), LOG, stream="log").output == OutputPiece(JOB_ID, "log", 10, 1, 3, b"abc")


def test_a_job_has_eight_streams() -> None:
    job = replace(job_in(HELD), output_streams={str(each): "text/plain" for each in range(8)})
    assert append(job, stream="7").output is not None
    with pytest.raises(LimitExceeded) as refused:
        append(job, stream="8")
    assert (refused.value.limit, refused.value.scope) == ("output_streams_per_job", "request")


def test_output_is_refused_that_is_too_much_where_the_creator_said_so() -> None:
    job = held(refuse_output=True)
    stored: Tails = {"log": OutputTail(end=1000, attempt=1, number=3, first=100, pieces=2)}
    assert append(job, stored, most=903, stream="x").output is not None
    with pytest.raises(LimitExceeded) as refused:
        append(job, stored, most=902, stream="x")
    assert (refused.value.limit, refused.value.value) == ("output_bytes_per_job", 902)
    assert append(held(), stored, most=902, stream="x").output is not None
    # Also in too many pieces: one for each 128 bytes.
    small: Tails = {"log": OutputTail(end=10, attempt=1, number=7, first=0, pieces=7)}
    assert append(job, small, most=8 * 128, stream="log").output is not None
    with pytest.raises(LimitExceeded):
        append(job, small, most=8 * 128 - 1, stream="log")


def test_output_renews_the_lease_and_the_stall_timeout_once_a_third_of_either_is_over() -> None:
    stall = Micros(30 * SECOND)
    job = held(
        lease_expire_time=Instant(NOW + LEASE),
        stall_timeout=stall,
        stall_expire_time=Instant(NOW + stall),
    )
    for after, renewed in ((0, False), (10 * SECOND, False), (10 * SECOND + 1, True)):
        now = Instant(NOW + after)
        decision = append(job, LOG, now, stream="log")
        assert decision.renewed is renewed
        if renewed:
            assert decision.job.stall_expire_time == now + stall
            assert decision.job.lease_expire_time == now + LEASE
            assert decision.job.progress_time == job.progress_time
    # Without a stall timeout that of the lease counts.
    alone = replace(job, stall_timeout=None, stall_expire_time=None)
    assert not append(alone, LOG, Instant(NOW + 20 * SECOND), stream="log").renewed
    assert append(alone, LOG, Instant(NOW + 20 * SECOND + 1), stream="log").renewed


COUNTS = st.dictionaries(st.text("abc", max_size=2), st.integers(0, 3000), min_size=1, max_size=8)


@pytest.mark.parametrize("what", ["stored", "pieces"])
@given(COUNTS, st.integers(1, 5000))
def test_the_longest_streams_are_cut_until_the_rest_fits(
    what: str, counts: dict[str, int], most: int
) -> None:
    if what == "stored":
        bound = most
        tails: Tails = {name: OutputTail(100 + size, 1, 0, 100) for name, size in counts.items()}
    else:
        bound = most * LEAST_PIECE_BYTES
        tails = {name: OutputTail(100, 1, 0, 100, count) for name, count in counts.items()}
    found = list(cuts(JOB_ID, tails, bound))
    after = tails
    for cut in found:
        after = after_cut(after, cut)
        assert after[cut.stream].end == tails[cut.stream].end
    left = {name: getattr(tail, what) for name, tail in after.items()}
    total = sum(counts.values())
    assert bool(found) == (total > most + most // SLACK)
    if not found:
        return
    assert most - len(counts) < sum(left.values()) <= most
    assert left.keys() == counts.keys()
    cut_streams = {name for name, count in counts.items() if left[name] < count}
    assert cut_streams == {cut.stream for cut in found}
    # A stream that is not cut is no longer than those that are, which are equally long.
    longest = max(left.values())
    assert all(left[name] >= longest - len(counts) for name in cut_streams)


def pieces(*lengths: int, attempt: int = 1, start: int = 0, stream: str = "") -> list[OutputPiece]:
    found = []
    for number, length in enumerate(lengths, start=1):
        found.append(OutputPiece(JOB_ID, stream, start, attempt, number, b"x" * length))
        start += length
    return found


def sizes(found: Sequence[OutputPiece]) -> list[tuple[str, int, int, int, int]]:
    return [(each.stream, each.start, each.attempt, each.number, len(each.data)) for each in found]


def test_what_one_commit_has_of_a_stream_and_attempt_is_joined_up_to_64_kib() -> None:
    whole = 64 * 1024
    first, other = pieces(3, 4), pieces(5, stream="log")
    second = pieces(2, 1, attempt=2, start=7)
    assert sizes(merged([first[0], *other, first[1], *second])) == [
        ("", 0, 1, 2, 7),
        ("", 7, 2, 2, 3),
        ("log", 0, 1, 1, 5),
    ]
    assert sizes(merged(pieces(whole - 1, 1, 1))) == [("", 0, 1, 2, whole), ("", whole, 1, 3, 1)]


def test_the_tail_after_an_append_is_that_of_its_piece() -> None:
    (piece,) = pieces(3, start=10, stream="log", attempt=2)
    assert after_append(LOG, piece) == {"log": OutputTail(13, 2, 1, 4, 3)}
