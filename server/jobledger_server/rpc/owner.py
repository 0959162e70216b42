"""The owner on whose behalf google.longrunning.Operations is called: it is in the metadata."""

from collections.abc import Collection

from jobledger_server.domain.limits import MAX_NAME_CHARACTERS
from jobledger_server.rpc.validation import Checker

OWNER_HEADER = "x-jobledger-user"
"""Metadata that names the owner, in printable ASCII."""

OWNER_BYTES_HEADER = "x-jobledger-user-bin"
"""Metadata that names the owner in UTF-8: gRPC requires -bin in the key of binary values."""

Metadata = Collection[tuple[str, str | bytes]]


def owner_of(check: Checker, metadata: Metadata, *, otherwise: str = "") -> str:
    """Return the owner that the metadata names, or `otherwise` if it names none."""
    named = [entry for entry in metadata if entry[0] in (OWNER_HEADER, OWNER_BYTES_HEADER)]
    if len(named) > 1:
        check.add(OWNER_HEADER, "is given more than once")
        return ""
    key, value = named[0] if named else (OWNER_HEADER, otherwise)
    try:
        owner = value if isinstance(value, str) else value.decode()
    except UnicodeDecodeError:
        check.add(key, "is not UTF-8")
        return ""
    return check.name(key, owner, MAX_NAME_CHARACTERS)
