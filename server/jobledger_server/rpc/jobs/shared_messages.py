"""Serialized messages that several watches are sent, made once."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

MAX_MESSAGES = 1024
"""Messages kept at most."""

MAX_BYTES = 8 * 1024 * 1024
"""Bytes of these messages at most."""


class SharedMessages:
    """The newest messages by a key that says all of their content."""

    def __init__(self) -> None:
        self._messages: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the message, which `make` makes if no other watch was sent it."""
        message = self._messages.get(key)
        if message is None:
            message = self._messages[key] = make()
            self._bytes += len(message)
            while self._bytes > MAX_BYTES or len(self._messages) > MAX_MESSAGES:
                _, oldest = self._messages.popitem(last=False)
                self._bytes -= len(oldest)
        return message
