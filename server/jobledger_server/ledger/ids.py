"""UUIDv7 (RFC 9562): ids that order by the time they were made."""

import secrets
import struct

_COUNTER_BITS = 42  # 12 bits of rand_a and the first 30 of rand_b: RFC 9562, 6.2, method 1
_TAILS = struct.Struct("256I")
"""The last 32 bits of so many ids: the system is asked for all of them at once."""


class IdSource:
    """Gives ids of which each is greater than the one before.

    Within a millisecond a counter goes up, so that jobs and assets of one batch
    keep their order; across milliseconds, and across servers, the time orders.
    """

    def __init__(self) -> None:
        self._millis = -1
        self._time = ""
        self._counter = 0
        self._tails: list[int] = []

    def new_id(self, now_micros: int) -> str:
        """Return an id for this time, in microseconds since the Unix epoch.

        A time before that of the last id counts as the same: ids never go back.
        """
        millis = now_micros // 1000
        if millis > self._millis:
            self._millis = millis
            digits = f"{millis:012x}"
            self._time = f"{digits[:8]}-{digits[8:]}"
            # The top bit is left free, so that there is room to count up.
            self._counter = secrets.randbits(_COUNTER_BITS - 1)
        else:
            self._counter += 1
        if not self._tails:
            self._tails = list(_TAILS.unpack(secrets.token_bytes(_TAILS.size)))
        tail = self._tails.pop()
        counter = self._counter
        rand_a, rand_b_head = counter >> 30, counter & 0x3FFF_FFFF
        return (
            f"{self._time}-7{rand_a:03x}-{0x8000 | rand_b_head >> 16:04x}"
            f"-{(rand_b_head & 0xFFFF) << 32 | tail:012x}"
        )
