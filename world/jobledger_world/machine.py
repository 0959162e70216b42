"""The machine that a simulated program asks for the time, for sleep and for entropy.

The service and the client get theirs from their event loop. Handlers, and what they use, ask
Python's `time`, `uuid`, `os.urandom` and `random`: during a run these answer for the world. So do
the name of the machine and the number of the process, which workers call themselves by.
"""

import multiprocessing.process
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from jobledger.core.tracing import trace_headers
from jobledger_world.chance import Chance
from jobledger_world.loop import WorldLoop, current_node
from jobledger_world.refusals import refuse_events, start_process, start_thread

EPOCH = 1_800_000_000
"""What a run's clock begins with, in seconds since the Unix epoch: in January 2027."""


@dataclass
class Machine:
    """The clock of a run. All nodes share it, as the clients of one database share its clock.

    Attributes:
        loop: Has the time that passes.
        jump: Seconds by which the clock was set forward since the run began.
    """

    loop: WorldLoop
    jump: float = 0.0

    def time(self) -> float:
        """Return seconds since the Unix epoch."""
        return EPOCH + self.loop.time() + self.jump

    def time_ns(self) -> int:
        """Return the same in nanoseconds, to the microsecond."""
        return round(self.time() * 1_000_000) * 1000


@contextmanager
def answering(machine: Machine, chance: Chance, sleep: Callable[[float], None]) -> Iterator[None]:
    """Have this process's clock and entropy be the machine's during the block.

    Args:
        machine: Has the time.
        chance: Decides what is random.
        sleep: What `time.sleep` does.
    """
    refuse_events()
    trace_headers(())  # what it imports at its first call draws entropy once in a process
    entropy, own, urandom = chance.of("entropy"), threading.get_ident(), os.urandom

    def entropy_bytes(size: int) -> bytes:
        # What other threads of the process draw must not change the run.
        return entropy.randbytes(size) if threading.get_ident() == own else urandom(size)

    replaced: list[tuple[Any, str, object]] = [
        (time, "time", machine.time),
        (time, "time_ns", machine.time_ns),
        (time, "monotonic", machine.loop.time),
        (time, "perf_counter", machine.loop.time),
        (time, "sleep", sleep),
        (os, "urandom", entropy_bytes),
        (os, "getpid", lambda: 1),  # as in a container
        (socket, "gethostname", _host),
        (threading.Thread, "start", start_thread),
        (multiprocessing.process.BaseProcess, "start", start_process),
    ]
    with ExitStack() as stack:
        for module, name, substitute in replaced:
            stack.enter_context(patch.object(module, name, substitute))
        stack.callback(random.setstate, random.getstate())
        random.seed(f"{chance.seed} random")
        yield


def _host() -> str:
    node = current_node()
    return "test" if node is None else node.name
