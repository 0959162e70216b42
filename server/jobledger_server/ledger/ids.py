"""UUIDv7 (RFC 9562): ids that order by the time they were made."""

import secrets

_COUNTER_BITS = 42  # 12 bits of rand_a and the first 30 of rand_b: RFC 9562, 6.2, method 1
_TAIL_BITS = 32


class IdSource:
    """Gives ids of which each is greater than the one before.

    Within a millisecond a counter goes up, so that jobs and assets of one batch
    keep their order; across milliseconds, and across servers, the time orders.
    """

    def __init__(self) -> None:
        self._millis = 0
        self._counter = 0

    def new_id(self, now_micros: int) -> str:
        """Return an id for this time, in microseconds since the Unix epoch.

        A time before that of the last id counts as the same: ids never go back.
        """
        millis = now_micros // 1000
        if millis > self._millis:
            self._millis = millis
            # The top bit is left free, so that there is room to count up.
            self._counter = secrets.randbits(_COUNTER_BITS - 1)
        else:
            self._counter += 1
        rand_a, rand_b_head = divmod(self._counter, 1 << 30)
        value = self._millis << 80
        value |= 0x7 << 76
        value |= rand_a << 64
        value |= 0b10 << 62
        value |= rand_b_head << _TAIL_BITS
        value |= secrets.randbits(_TAIL_BITS)
        digits = f"{value:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
