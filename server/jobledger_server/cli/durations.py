"""Durations on the command line: 90s, 5m, 2h, 30d."""

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

LONGEST_SECONDS = 100 * 365 * 86400


def duration(text: str, at_least: float = 0) -> float:
    """Parse a number of seconds, minutes, hours or days. Raises click.BadParameter."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise click.BadParameter(f"{text!r} is not a duration: write 90s, 5m, 2h or 30d")
    if seconds < at_least:
        raise click.BadParameter(f"{text!r} is less than {at_least:g} seconds")
    return seconds


def duration_text(seconds: float) -> str:
    """Format a duration in the largest unit in which it is a whole number."""
    unit = next(unit for unit in "dhms" if seconds % _UNITS[unit] == 0)
    return f"{seconds / _UNITS[unit]:g}{unit}"
