"""Serialized messages that several watches are sent, made once."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any

from jobledger_server.tuning import Tuning


class SharedMessages:
    """The newest messages by a key that says all of their content."""

    def __init__(self, tuning: Tuning = Tuning()) -> None:
        self._max_messages = tuning.shared_messages
        self._max_bytes = tuning.shared_message_bytes
        self._messages: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0
        self._making: dict[Hashable, asyncio.Task[bytes]] = {}

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the message, which `make` makes if no other watch was sent it."""
        message = self._messages.get(key)
        if message is None:
            message = make()
            self._keep(key, message)
        return message

    async def read(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """Like `get`, for a message of which a part is read first."""
        message = self._messages.get(key)
        if message is not None:
            return message
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.create_task(make())
            making.add_done_callback(partial(self._made, key))
        return await asyncio.shield(making)  # other watches may wait for it

    def _made(self, key: Hashable, making: asyncio.Task[bytes]) -> None:
        del self._making[key]
        if not making.cancelled() and making.exception() is None:
            self._keep(key, making.result())

    def _keep(self, key: Hashable, message: bytes) -> None:
        self._messages[key] = message
        self._bytes += len(message)
        while self._bytes > self._max_bytes or len(self._messages) > self._max_messages:
            _, oldest = self._messages.popitem(last=False)
            self._bytes -= len(oldest)
