"""What one address, and all together, can make the gateway hold and do.

An address is an IPv4 address or the /64 of an IPv6 address. docs/reference/limits.md has each of
these numbers, and tests/robustness/abuse/gateway an attack on it.
"""

from typing import Final

MIB: Final = 1024 * 1024

MAX_HEAD: Final = 16 * 1024
"""Bytes of a request's first line and headers at most."""

MAX_QUERY: Final = 8 * 1024
"""Bytes of the query of a URL at most."""

MAX_PARAMETERS: Final = 200
"""Parameters in a query at most."""

READ_BYTES: Final = 4 * 1024
"""Bytes that are read of a connection at once. h11 compares a head with MAX_HEAD only where it
does not end in what was read, so a head that came in one piece could have any length."""

HEAD_SECONDS: Final = 10.0
"""From the connection, or the end of the answer before, until a request's head has arrived."""

OPENING_STREAMS: Final = 4
"""Event streams of one address that the service is asked for at once. Further ones wait."""

SPARE_CONNECTIONS: Final = 100
"""Connections beyond the limit. Their requests are refused, except the probes of a platform."""
