"""The pure part of reading output: what a watch yields, where it resumes, and what is text."""

from typing import Any

import pytest

from jobledger.core.output import OutputPiece
from jobledger.core.output_watch import OutputWatch, quiet_output
from jobledger.v1.job_service_pb2 import (
    ReadOutputResponse,
    WatchOutputRequest,
    WatchOutputResponse,
)

TEXT = "a\N{LATIN SMALL LETTER E WITH ACUTE}\N{EURO SIGN}\N{GRINNING FACE}z"
PLACE = {"offset": 5, "next_offset": 5, "up_to_date": True}


@pytest.fixture
def watch(clock):
    def watch(*, heartbeats: bool = False, **fields: Any) -> OutputWatch:
        request = WatchOutputRequest(job_id="j", user_id="ada", **fields)
        return OutputWatch(request, clock=clock, heartbeats=heartbeats)

    return watch


def message(data: bytes, offset: int, attempt: int = 1, **fields: Any) -> WatchOutputResponse:
    return WatchOutputResponse(
        data=data, offset=offset, next_offset=offset + len(data), attempt=attempt, **fields
    )


def place(**fields: Any) -> WatchOutputResponse:
    return WatchOutputResponse(**PLACE | fields)


@pytest.mark.parametrize("size", range(1, 12))
def test_the_texts_of_pieces_cut_no_character(watch, size):
    data = TEXT.encode()
    watched = watch()
    texts = []
    for start in range(0, len(data), size):
        (piece,) = watched.accept(message(data[start : start + size], start))
        assert piece.data == data[start : start + size]
        texts.append(piece.text)
    assert "".join(texts) == TEXT


def test_a_character_whose_end_never_comes_is_not_readable(watch):
    euro = "\N{EURO SIGN}".encode()
    watched = watch()
    (cut,) = watched.accept(message(b"a" + euro[:2], 0))
    (end,) = watched.accept(WatchOutputResponse(offset=3, next_offset=3, closed=True))
    assert (cut.text, end.text) == ("a", "\ufffd")


@pytest.mark.parametrize(
    "later",
    [message(b"new", 3, attempt=2), message(b"new", 9, truncated_before=9)],
    ids=["another attempt", "a gap"],
)
def test_the_beginning_of_a_character_is_forgotten_where_its_end_cannot_follow(watch, later):
    watched = watch()
    watched.accept(message("a\N{EURO SIGN}".encode()[:3], 0))
    (piece,) = watched.accept(later)
    assert piece.text == "new"


def test_a_piece_that_begins_within_a_character_leaves_it_out():
    data = "\N{GRINNING FACE}ab".encode()
    for start in range(1, 4):
        read = ReadOutputResponse(data=data[start:], offset=start, next_offset=len(data))
        assert OutputPiece.from_proto(read).text == "ab"
    from_the_beginning = ReadOutputResponse(data=data[1:], next_offset=5)
    assert OutputPiece.from_proto(from_the_beginning).text == "\ufffd" * 3 + "ab"


def test_a_watch_resumes_after_what_was_received_wherever_it_began(watch):
    for fields in ({"after_offset": 3}, {"last_bytes": 2}, {}):
        watched = watch(**fields)
        first = watched.request()
        watched.accept(message(b"ab", 3))
        assert watched.request().after_offset == 5
        watched.accept(place())
        assert watched.request().after_offset == 5
        assert first == WatchOutputRequest(job_id="j", user_id="ada", **fields)
        assert not watched.request().HasField("last_bytes")


def test_a_note_is_yielded_once_when_the_caller_has_all_and_when_the_stream_is_closed(watch):
    watched = watch()
    given = [
        message(b"abcde", 0),
        place(),
        place(),
        message(b"f", 5, up_to_date=True),
        place(offset=6, next_offset=6, closed=True),
    ]
    pieces = [piece for each in given for piece in watched.accept(each)]
    assert [(each.data, each.up_to_date, each.closed) for each in pieces] == [
        (b"abcde", False, False),
        (b"", True, False),
        (b"f", True, False),
        (b"", True, True),
    ]
    assert watched.ended


def test_a_message_without_news_is_a_heartbeat_for_those_who_want_some(watch):
    for wanted in (False, True):
        watched = watch(heartbeats=wanted)
        watched.accept(place())
        found = watched.accept(place())
        assert [(each.heartbeat, each.next_offset) for each in found] == [(True, 5)] * wanted


def test_a_heartbeat_of_the_client_says_where_the_stream_is(watch):
    (piece,) = watch().accept(message(b"abc", 4))
    quiet = quiet_output(piece, 1.5)
    assert (quiet.data, quiet.offset, quiet.next_offset) == (b"", 7, 7)
    assert (quiet.heartbeat, quiet.silence, quiet.text) == (True, 1.5, "")
