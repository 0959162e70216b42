"""The load generator of several.py, a program: as http2_load.py, over many connections in turn."""

import itertools
from collections.abc import Callable
from typing import Any

import uvloop

from benchmarks.channel import Channel
from benchmarks.http2_load import Http2Load
from benchmarks.load import main

CONNECTIONS = 8
"""Of each generator to each server: the kernel deals them out to the server's processes."""


class Spread:
    """Several channels as one: each call goes over the next."""

    def __init__(self, target: str) -> None:
        self._channels = [Channel(target) for _ in range(CONNECTIONS)]

    def __getattr__(self, kind: str) -> Callable[..., Callable[..., Any]]:
        """Return what makes methods of this kind, for instance `unary_unary`."""

        def method(*arguments: Any, **options: Any) -> Callable[..., Any]:
            methods = [getattr(each, kind)(*arguments, **options) for each in self._channels]
            turns = itertools.cycle(methods)

            def call(*request: Any, **how: Any) -> Any:
                return next(turns)(*request, **how)

            return call

        return method


class SeveralLoad(Http2Load):
    """All that this process can do; each method is a command."""

    def _connect(self, target: str) -> Any:
        return Spread(target)


if __name__ == "__main__":
    uvloop.run(main(SeveralLoad()))
