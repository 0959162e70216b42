"""A client's own channel that shows which calls went over it."""

from collections import Counter
from collections.abc import Callable
from typing import Any


class ObservedChannel:
    """Passes calls on to a channel, sync or async.

    It remembers each call by its method's name and holds on to it, so that no garbage collection
    ends a stream.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._calls: list[tuple[str, Any]] = []
        self._sent: Counter[str] = Counter()

    def count(self, method: str) -> int:
        return self.counts()[method]

    def counts(self) -> Counter[str]:
        return Counter(name for name, _ in self._calls)

    def sent(self, method: str) -> int:
        """Count the messages that were written to streams of a method."""
        return self._sent[method]

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        return self._observed(method, self._channel.unary_unary(method, *arguments, **options))

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        return self._observed(method, self._channel.unary_stream(method, *arguments, **options))

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        *arguments: Any,
        **options: Any,
    ) -> Callable[..., Any]:
        def serialize(message: Any) -> bytes:
            self._sent[method.rpartition("/")[2]] += 1
            return request_serializer(message)

        begin = self._channel.stream_stream(method, serialize, *arguments, **options)
        return self._observed(method, begin)

    def _observed(self, method: str, begin: Callable[..., Any]) -> Callable[..., Any]:
        name = method.rpartition("/")[2]

        def observed(*arguments: Any, **options: Any) -> Any:
            call = begin(*arguments, **options)
            self._calls.append((name, call))
            return call

        return observed
