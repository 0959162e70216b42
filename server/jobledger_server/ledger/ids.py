"""UUIDv7 (RFC 9562): ids that order by the time they were made."""

import secrets
import uuid

_COUNTER_BITS = 42  # 12 bits of rand_a and the first 30 of rand_b: RFC 9562, 6.2, method 1
_TAIL_BITS = 32


class IdSource:
    """Gives ids of which each is greater than the one before.

    Within a millisecond a counter goes up, so that jobs and assets of one batch
    keep their order. Across milliseconds, and across servers, the time orders.
    """

    def __init__(self) -> None:
        self._millis = -1
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
        head = self._millis << 16 | 7 << 12 | rand_a
        tail = 0b10 << 62 | rand_b_head << _TAIL_BITS | secrets.randbits(_TAIL_BITS)
        return str(uuid.UUID(int=head << 64 | tail))
