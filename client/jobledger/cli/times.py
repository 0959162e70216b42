"""Times on the command line: spans (90s, 5m, 2h, 7d), dates (2026-11-01T15:30Z), and both."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d+)?)\s*([smhd]?)")


def duration(text: str) -> timedelta:
    """Read a time span, in seconds if it has no unit. A type for click's options: a DURATION."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a time span such as 90s, 5m, 2h or 7d")
    try:
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise click.BadParameter(f"{text!r} is too long") from None


def date(text: str) -> datetime:
    """Read a date, or a date and time. A type for click's options.

    Without an offset it is UTC, as all times that the command line prints.
    """
    try:
        given = datetime.fromisoformat(text.strip())
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a date such as 2026-11-01 or 2026-11-01T15:30Z"
        ) from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def moment(text: str) -> datetime:
    """Read a date, a date and time, or how long ago. A type for click's options."""
    text = text.strip()
    if text[-1:].isalpha() and _SPAN.fullmatch(text):
        try:
            return datetime.now(UTC) - duration(text)
        except OverflowError:
            raise click.BadParameter(f"{text!r} is too long ago") from None
    try:
        return date(text)
    except click.BadParameter as error:
        raise click.BadParameter(
            f"{error.message}, nor a time ago such as 90s, 5m, 2h or 7d"
        ) from None


def clock(moment: datetime, now: datetime) -> str:
    """Return a time in UTC to the minute, for people; with its date unless that is today's."""
    moment = moment.astimezone(UTC)
    return f"{moment:%H:%M}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M}"


def rough(seconds: float) -> str:
    """Return a time span in its largest whole unit, for people: 90 seconds are 1m."""
    whole = max(int(seconds), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= length:
            return f"{whole // length}{unit}"
    return f"{whole}s"
