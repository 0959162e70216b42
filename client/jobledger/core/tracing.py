"""The OpenTelemetry context of this program, if it uses OpenTelemetry.

A program that traces has imported OpenTelemetry. For one that has not nothing is imported, so that
it is no dependency and costs nothing.
"""

import sys

from jobledger.core.options import Headers


def tracing() -> bool:
    """Return whether this program uses OpenTelemetry."""
    return "opentelemetry.trace" in sys.modules


def trace_headers(given: Headers) -> Headers:
    """Return the current trace context as metadata, without keys that are given."""
    if not tracing():
        return ()
    from opentelemetry import propagate  # noqa: PLC0415

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    keys = {key for key, _ in given}
    return tuple((key, value) for key, value in carrier.items() if key not in keys)
