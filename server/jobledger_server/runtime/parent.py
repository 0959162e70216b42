"""The process that started this one as one of several, as this one sees it.

The line between them is this one's standard input, a socket: a byte to the parent
says that this one serves, and the line's end says that the parent is gone.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

_LINE = 0


def tell_serving() -> None:
    """Say that this process serves."""
    with suppress(OSError):  # gone already, which `when_gone` tells
        os.write(_LINE, b"\n")


def when_gone(do: Callable[[], None]) -> None:
    """Call `do` on the running event loop when the parent has ended, in whatever way."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(_LINE)
        do()

    # Nothing is ever sent down the line: what there is to read is its end.
    loop.add_reader(_LINE, end)
