"""The trace that a call belongs to: it is in the metadata, as W3C Trace Context has it."""

import re
from collections.abc import Collection

from jobledger_server.domain.limits import MAX_TRACEPARENT_CHARACTERS

HEADER = "traceparent"

# Version, trace id, parent id, flags. Only a version after 00 may go on, after another dash. gRPC
# does not check the characters of what it receives, and does not send others than ASCII.
_TRACEPARENT = re.compile(
    "(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?"
)


def traceparent_of(metadata: Collection[tuple[str, str | bytes]]) -> str:
    """Return the call's traceparent, or an empty string if it has none that is valid."""
    named = [value for key, value in metadata if key == HEADER]
    if len(named) != 1:
        return ""
    value = named[0]
    if not isinstance(value, str) or len(value) > MAX_TRACEPARENT_CHARACTERS:
        return ""
    return value if _TRACEPARENT.fullmatch(value) else ""
