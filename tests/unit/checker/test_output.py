"""What the checker finds wrong with output."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.checker.clients.output_writers import content
from tests.checker.history import (
    Append,
    Attempt,
    History,
    Outcome,
    OutputPlace,
    OutputRead,
    OutputStream,
    OutputWatcher,
    Piece,
    Record,
    Recount,
    Snapshot,
)
from tests.checker.judge.output import check_output

ONE, TWO, THREE = (content(mark, 60) for mark in ("one", "two", "three"))
LENGTH = 60


def appended(number: int, data: bytes, attempt: int = 1, **fields: object) -> Append:
    made = Append("j", "", attempt, number, data, tries=1, outcome=Outcome.ACKNOWLEDGED)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def piece(offset: int, data: bytes, attempt: int = 1, **fields: object) -> Piece:
    end = offset + len(data)
    made = Piece(
        at=0.0,
        offset=offset,
        data=data,
        attempt=attempt,
        next_offset=end,
        up_to_date=True,
        closed=False,
        truncated_before=0,
    )
    return replace(made, **fields)


def read(*pieces: Piece, at: int = 0) -> list[OutputRead]:
    found = []
    for each in pieces:
        found.append(OutputRead("j", "", OutputPlace(at), 0, 0.0, each))
        at = each.next_offset
    return found


END = piece(3 * LENGTH, b"", 0, closed=True)
STREAM = [piece(0, ONE), piece(LENGTH, TWO + THREE), END]


class Told:
    """A small history that keeps every promise, to be spoilt in one way at a time."""

    def __init__(self) -> None:
        self.appends = [
            appended(number, data, next_offset=number * LENGTH)
            for number, data in enumerate((ONE, TWO, THREE), start=1)
        ]
        self.final = read(piece(0, ONE + TWO + THREE, closed=True))
        self.streams = [OutputStream(OutputPlace(), 0.0, messages=[*STREAM], end="OK")]
        self.job = Snapshot("j", 3, "COMPLETED", attempt=1)
        self.recounts = [Recount(0.0)]
        self.reads: list[OutputRead] = []
        self.most = 10_000
        self.deleted = False

    @property
    def found(self) -> list[str]:
        """What the judge finds."""
        record = Record(
            self.job,
            attempts=(Attempt(1, "w", "COMPLETED"),),
            outputs={"": self.final},
            deleted=self.deleted,
        )
        history = History(
            appends=self.appends,
            output_watchers=[OutputWatcher("reader", "j", "", self.streams)],
            output_reads=self.reads,
            records={"j": record},
            recounts=self.recounts,
            job_output=self.most,
        )
        return [f"{violation.kind}: {violation.what}" for violation in check_output(history)]


def lost_at_the_end(told: Told) -> None:
    told.final = read(piece(0, ONE + TWO, closed=True))
    told.streams[0].messages = [piece(0, ONE + TWO), piece(2 * LENGTH, b"", 0, closed=True)]


def lost_in_the_middle(told: Told) -> None:
    told.final = read(piece(0, ONE + THREE, closed=True))
    told.streams.clear()


def swapped(told: Told) -> None:
    told.final = read(piece(0, TWO + ONE + THREE, closed=True))
    told.streams.clear()


def twice(told: Told) -> None:
    told.final = read(piece(0, ONE + TWO + THREE + THREE, closed=True))
    told.streams.clear()


def torn(told: Told) -> None:
    told.final = read(piece(0, ONE + TWO[:30] + THREE, closed=True))
    told.streams.clear()


def refused_and_stored(told: Told) -> None:
    told.appends[1].outcome = Outcome.REFUSED


def fenced_and_acknowledged(told: Told) -> None:
    told.appends[2].fenced = True


def of_another_attempt(told: Told) -> None:
    told.streams[0].messages[0] = piece(0, ONE, 2)


def read_differently(told: Told) -> None:
    told.reads = read(piece(0, TWO))


def skipped(told: Told) -> None:
    told.streams[0].messages = [piece(0, ONE), piece(2 * LENGTH, THREE), END]


def said_to_be_dropped(told: Told) -> None:
    told.streams[0].messages = [piece(LENGTH, TWO + THREE, truncated_before=LENGTH), END]


def sent_twice(told: Told) -> None:
    told.streams[0].messages = [*STREAM[:2], piece(LENGTH, TWO + THREE), END]


def closed_too_soon(told: Told) -> None:
    told.streams[0].messages = [piece(0, ONE), piece(LENGTH, b"", 0, closed=True)]


def more_after_the_end(told: Told) -> None:
    told.streams[0].messages = [*STREAM, END]


def ended_without_the_last_message(told: Told) -> None:
    told.streams[0].messages.pop()


def never_ended(told: Told) -> None:
    told.streams[0].messages.pop()
    told.streams[0].end = "left"


def not_found(told: Told) -> None:
    told.streams[0].end = "NOT_FOUND"


def dropped_too_soon(told: Told) -> None:
    told.final = read(piece(LENGTH, TWO + THREE, closed=True, truncated_before=LENGTH))


def dropped_of_a_job_that_refuses(told: Told) -> None:
    dropped_too_soon(told)
    told.most = 2 * LENGTH
    told.job = replace(told.job, refuses_output=True)


def repeated_and_answered_with_less(told: Told) -> None:
    told.appends[1].repeated.append(LENGTH)


def too_much_is_stored(told: Told) -> None:
    told.recounts = [Recount(0.0, overfull=("j",))]


def another_version(told: Told) -> None:
    told.job = replace(told.job, version=5)


SPOILT: dict[Callable[[Told], None], str] = {
    lost_at_the_end: "lost: j, stream '': append 3",
    lost_in_the_middle: "lost: j, stream '': append 2",
    swapped: "reordered: ",
    twice: "duplicated: ",
    torn: "was not appended as a whole",
    refused_and_stored: "was refused, and is at 60",
    fenced_and_acknowledged: "acknowledged after its attempt had ended",
    of_another_attempt: "was read as of attempt 2",
    read_differently: "are not what others read",
    skipped: "nothing says why",
    said_to_be_dropped: "was dropped, which is stored",
    sent_twice: "duplicated: ",
    closed_too_soon: "is the last, and the stream ends at 180",
    more_after_the_end: "comes after the end",
    ended_without_the_last_message: "ended without the last message",
    never_ended: "was not told of the end",
    not_found: "the job was not found, and is there",
    dropped_too_soon: "has only",
    dropped_of_a_job_that_refuses: "although what is too much is refused",
    repeated_and_answered_with_less: "its repetitions at [60]",
    too_much_is_stored: "too much is stored of j",
    another_version: "is at version 5, and 4 changes were asked for",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_with_output_is_found(spoil: Callable[[Told], None]) -> None:
    told = Told()
    assert told.found == []
    spoil(told)
    assert any(SPOILT[spoil] in what for what in told.found), told.found


def test_output_that_was_dropped_for_more_is_not_missed() -> None:
    told = Told()
    dropped_too_soon(told)
    told.most = 2 * LENGTH
    told.streams[0].messages[0] = piece(0, ONE)  # a reader that was there in time
    assert told.found == []


def test_what_is_unknown_may_be_stored_or_not() -> None:
    told = Told()
    told.appends.append(appended(4, content("four", 60), outcome=Outcome.UNKNOWN))
    told.appends[1].outcome = Outcome.UNKNOWN
    assert told.found == []


def test_the_beginning_of_a_piece_that_could_be_several_is_taken_for_none_of_them() -> None:
    told = Told()
    told.appends = [
        appended(number, content(mark, LENGTH), outcome=Outcome.UNKNOWN)
        for number, mark in enumerate(("ten", "two", "three"), start=1)
    ]
    ten, two, _ = (append.data for append in told.appends)
    told.final = read(piece(0, ten + two[:1], closed=True))
    told.streams.clear()
    assert told.found == []


def test_a_read_that_begins_within_a_piece_is_judged_from_the_next_one_on() -> None:
    told = Told()
    dropped_too_soon(told)
    told.most = 2 * LENGTH
    told.streams = [
        OutputStream(
            OutputPlace(last_bytes=2 * LENGTH + 20), 0.0, messages=[piece(40, ONE[40:])], end="left"
        ),
        OutputStream(OutputPlace(LENGTH), 0.0, messages=STREAM[1:], end="OK"),
    ]
    assert told.found == []
