"""Time spans on the command line: 90s, 5m, 2h, 7d."""

import re
from datetime import timedelta
from typing import Final

import click

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d+)?)\s*([smhd]?)")


def time_span(text: str) -> timedelta:
    """Read a time span; seconds where it has no unit. A type for click's options."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a time span: 90s, 5m, 2h or 7d")
    try:
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise click.BadParameter(f"{text!r} is too long") from None
