"""UUIDv7 (RFC 9562): ids that sort by their time of creation."""

import secrets
import uuid
from collections.abc import Callable

from jobledger_server.domain.job import ID_AHEAD

_COUNTER_BITS = 42  # 12 bits of rand_a and the first 30 of rand_b: RFC 9562, 6.2, method 1
_TAIL_BITS = 32
_TAILS = 256
"""Drawn at once: the system's source lets other threads run, and then waits for them."""
_AHEAD_MILLIS = ID_AHEAD // 1000


class IdSource:
    """Creates ids, each greater than the previous one.

    Within a millisecond a counter orders them, so that the jobs and assets of a batch keep
    their order. Across milliseconds, and across servers, the time does.

    Args:
        randbits: Returns an int of this many random bits.
    """

    def __init__(self, randbits: Callable[[int], int] = secrets.randbits) -> None:
        self._randbits = randbits
        self._millis = -1
        self._counter = 0
        self._tails: list[int] = []

    def new_id(self, now_micros: int) -> str:
        """Return an id for this time, in microseconds since the Unix epoch.

        If the time is before that of the previous id, the previous time is used, unless that
        is too far ahead of it.
        """
        millis = now_micros // 1000
        if not self._millis - _AHEAD_MILLIS < millis <= self._millis:
            self._millis = millis
            # The top bit is left 0, so that the counter does not overflow.
            self._counter = self._randbits(_COUNTER_BITS - 1)
        else:
            self._counter += 1
        rand_a, rand_b_head = divmod(self._counter, 1 << 30)
        if not self._tails:
            drawn = self._randbits(_TAIL_BITS * _TAILS).to_bytes(_TAIL_BITS // 8 * _TAILS)
            self._tails = list(memoryview(drawn).cast("I"))
        head = self._millis << 16 | 7 << 12 | rand_a
        tail = 0b10 << 62 | rand_b_head << _TAIL_BITS | self._tails.pop()
        return str(uuid.UUID(int=head << 64 | tail))
