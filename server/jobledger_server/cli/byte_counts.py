"""Numbers of bytes as people write them: 1048576, 64KiB, 1MiB."""

import re

import click

_UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def byte_count(text: str, least: float, most: float) -> int:
    """Parse a number of bytes, which is at least 1. Raises click.BadParameter."""
    found = re.fullmatch(r"([0-9]+) *(|KiB|MiB|GiB)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a number of bytes: write for instance 1MiB")
    count = int(found[1]) * _UNITS[found[2]]
    least = max(1, least)
    if not least <= count <= most:
        bound = f"at least {bytes_text(int(least))}"
        if count > most:
            bound = f"at most {bytes_text(int(most))}"
        raise click.BadParameter(f"{text!r} must be {bound}")
    return count


def bytes_text(count: int) -> str:
    """Return a number of bytes with the largest unit that it is a multiple of."""
    unit = next(each for each in reversed(_UNITS) if count % _UNITS[each] == 0)
    return f"{count // _UNITS[unit]}{unit}"
