"""Time spans by their units, where an argument takes seconds or a timedelta."""

from datetime import timedelta


def minutes(number: float) -> timedelta:
    """Return so many minutes: `run_timeout=minutes(30)`."""
    return timedelta(minutes=number)


def hours(number: float) -> timedelta:
    """Return so many hours."""
    return timedelta(hours=number)


def days(number: float) -> timedelta:
    """Return so many days."""
    return timedelta(days=number)
