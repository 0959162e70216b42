"""A thread that takes the interpreter whenever it may, and then keeps it for five milliseconds."""

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Switches:
    """How often the thread of a block has let others run, once the block has ended."""

    count = 0


@contextmanager
def busy_thread() -> Iterator[Switches]:
    """Count in the block how often its thread lets this one run, and waits for it."""
    ended = False

    def compute() -> None:
        while not ended:
            pass

    switches = Switches()
    other = threading.Thread(target=compute)
    other.start()
    before = _switches()
    try:
        yield switches
        switches.count = _switches() - before
    finally:
        ended = True
        other.join()


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
