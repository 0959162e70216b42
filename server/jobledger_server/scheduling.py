"""Scheduling: while the event loop is busy, the threads beside it do not interrupt it.

Each packet wakes the thread in which gRPC waits for events, each statement that of a
connection to SQLite. Where cores are few the one that wakes takes the loop's, in the
middle of what the loop does, to hand it one more event. With the policy SCHED_BATCH a
thread that wakes waits for its turn (see sched(7)), and then hands over what has gathered.

It waits for the turns of other programs too. So it has this policy only while the loop
gets most of a core: where others take the cores, it does not.
"""

import asyncio
import os
import sys
import threading
import time
from contextlib import suppress

BUSY = 0.6
"""The share of its time that the loop works, from which on it is spared."""

CALM = 0.4
"""The share below which it is not any more: spared, it does the same in less time."""

LOOK_SECONDS = 0.2


async def spare_the_loop() -> None:
    """Look until cancelled how busy the running event loop is, and spare it while it is.

    Does nothing where there is no such policy, or where whoever started the process has
    chosen one for it. Of threads it knows those that Python knows.
    """
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    spared = False
    worked, time_then = time.thread_time(), time.monotonic()
    try:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            worked_before, time_before = worked, time_then
            worked, time_then = time.thread_time(), time.monotonic()
            share = (worked - worked_before) / (time_then - time_before)
            was_spared, spared = spared, share >= (CALM if spared else BUSY)
            if spared or was_spared:  # each time: some threads are new
                _set_others(os.SCHED_BATCH if spared else os.SCHED_OTHER)
    finally:
        if spared:
            _set_others(os.SCHED_OTHER)


def _set_others(policy: int) -> None:
    """Give every other thread of this process this policy."""
    for thread in threading.enumerate():
        number = thread.native_id
        if number is not None and number != threading.get_native_id():
            with suppress(OSError):  # it has just ended; or a sandbox forbids it
                os.sched_setscheduler(number, policy, os.sched_param(0))
