"""Times on the command line."""

import time
from datetime import UTC, datetime, timedelta

import click
import pytest

from jobledger.cli.times import date, duration, moment, rough


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), (" 7d ", 604800)]
)
def test_a_time_span_is_seconds_or_has_a_unit(text, seconds):
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-5", "2w", "1h30m"])
def test_anything_else_is_no_time_span(text):
    with pytest.raises(click.BadParameter, match="90s"):
        duration(text)


def test_a_moment_without_an_offset_is_utc_wherever_the_caller_is(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert moment("2026-11-01") == datetime(2026, 11, 1, tzinfo=UTC)
        assert moment("2026-11-01T15:30") == datetime(2026, 11, 1, 15, 30, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_moment_with_an_offset_is_that():
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert moment("2026-11-01T12:00Z") == moment("2026-11-01T13:00+01:00") == noon


def test_a_moment_may_be_a_time_ago():
    before = datetime.now(UTC)
    assert before <= moment("2h") + timedelta(hours=2) <= datetime.now(UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2026", "90", "2026-13-01", "999999999d"])
def test_anything_else_is_no_moment(text):
    with pytest.raises(click.BadParameter):
        moment(text)


@pytest.mark.parametrize("text", ["", "2h", "90s", "tomorrow"])
def test_a_date_is_no_time_ago(text):
    with pytest.raises(click.BadParameter, match="2026-11-01"):
        date(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.5, "0s"), (59, "59s"), (90, "1m"), (7200, "2h"), (200_000, "2d")],
)
def test_a_rough_time_span_has_one_unit(seconds, text):
    assert rough(seconds) == text
