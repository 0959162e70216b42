"""Values of the client as JSON has them: what `to_dict` and the command line's `--json` show."""

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Any


def plain(value: object) -> Any:
    """Return a value as JSON has it.

    The keys are the fields of the class, in their order; those of maps and JSON objects are
    sorted. Unset fields are None, times are RFC 3339 in UTC with microseconds,
    time spans are seconds, as in `90s`.
    """
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    match value:
        case Enum():
            return value.value
        case Mapping():
            return {key: plain(value[key]) for key in sorted(value)}
        case list() | tuple():
            return [plain(item) for item in value]
        case datetime():
            return rfc3339(value, "microseconds")
        case timedelta():
            # Not with :g, which rounds to six digits.
            return f"{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"
    return value


def rfc3339(moment: datetime, precision: str = "seconds") -> str:
    """Return a time in UTC as RFC 3339."""
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")
