"""What a watch over the network is to the threads that use it."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from jobledger.core.streams import Stop, Watch

TIMES = 300  # Python 3.11 crashed at the 65th, 3.12 at the 125th


def test_a_watch_can_be_closed_again_and_again_while_another_thread_reads_it() -> None:
    reads, goes_on = threading.Semaphore(0), threading.Semaphore(0)

    def wait() -> None:
        reads.release()
        goes_on.acquire()

    def events() -> Generator[None, None, None]:
        waiting = partial(wait)  # The crash needs a call that Python does not specialize.
        for _ in range(TIMES):
            waiting()
        yield

    watch = Watch(events(), Stop())
    with ThreadPoolExecutor(1) as threads:
        seen = threads.submit(list, watch)
        for _ in range(TIMES):
            reads.acquire()
            watch.close()
            goes_on.release()
        assert seen.result(10) == [None]
