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

READ_BYTES: Final = 16 * 1024
"""Bytes that are read of a connection at once. h11 compares a head with MAX_HEAD only where it
does not end in what was read, so a head that came in one piece could have any length."""

HEAD_SECONDS: Final = 10.0
"""From the connection, or the end of the answer before, until a request's head has arrived."""

OPENING_STREAMS: Final = 2
"""Event streams of one address that the service is asked for at once. Further ones wait."""

SPARE_CONNECTIONS: Final = 100
"""Connections beyond the limit. Their requests are refused, except the probes of a platform."""

BODY_BYTES, ADDRESS_BODY_BYTES = 64 * MIB, 32 * MIB
"""Bytes of requests' bodies, in all and of one address, until their calls have ended."""

BUFFERED_BYTES: Final = 64 * 1024
"""Bytes of a body that uvicorn reads before they are asked for. They count from the start."""

ANSWER_BYTES, ADDRESS_ANSWER_BYTES = 128 * MIB, 32 * MIB
"""Bytes of answers and events that are awaited or not sent yet, in all and of one address."""

PART_BYTES: Final = 16 * 1024
"""Bytes of an answer that are sent at once, and that a connection holds at most before it waits for
its client. Smaller answers and events do not count."""

FILE_PART_BYTES: Final = 256 * 1024
"""Bytes of output that is sent as a file, which are read at once."""

PAGE_BYTES: Final = 3 * MIB
"""Bytes of a page of the service's."""

FULL_JOB_BYTES: Final = MIB
"""Bytes of a job in the view FULL, nearly at most."""

ROW_BYTES: Final = 4 * 1024
"""Bytes of any other job, asset, attempt or transition, nearly always at most."""

USUAL_ROWS: Final = 50
"""Rows of a page, if the request does not say."""

SHARED_MESSAGES: Final = 64
"""Messages of at most 16 KiB whose JSON is kept, for further event streams that are sent them."""

FULL_STREAMS, ADDRESS_FULL_STREAMS = 100, 10
"""Event streams of the view FULL, in all and of one address."""

REFUSAL_SECONDS: Final = (1.0, 3.0)
"""After how many seconds an address is told that it has too much, at random between these: answers
to all that it has sent at once would hold up others."""
