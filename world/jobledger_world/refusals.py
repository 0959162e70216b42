"""What a simulated process does not have: sockets, threads, subprocesses. Each is refused by name.

What goes through the event loop is refused by the loop, the rest by an audit hook of Python, which
does nothing outside of simulated processes.
"""

import asyncio
import multiprocessing.process
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import NoReturn

from jobledger_world.nodes import current_node

SOCKETS, FILES, PROCESSES, THREADS, SIGNALS = (
    "sockets",
    "pipes",
    "subprocesses",
    "threads of its own, but asyncio.to_thread and plain handlers",
    "signals, but those that its test gives it: run the worker with signals=False",
)

_METHODS = {
    SOCKETS: "create_connection create_server create_datagram_endpoint create_unix_connection "
    "create_unix_server connect_accepted_socket start_tls sendfile getaddrinfo getnameinfo "
    "sock_accept sock_connect sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into "
    "sock_sendall sock_sendfile sock_sendto add_reader add_writer remove_reader remove_writer",
    FILES: "connect_read_pipe connect_write_pipe",
    PROCESSES: "subprocess_exec subprocess_shell",
    SIGNALS: "add_signal_handler remove_signal_handler",
}
_EVENTS = {
    "socket.connect": SOCKETS,
    "socket.bind": SOCKETS,
    "socket.getaddrinfo": SOCKETS,
    "subprocess.Popen": PROCESSES,
    "os.fork": PROCESSES,
    "os.posix_spawn": PROCESSES,
    "os.system": PROCESSES,
}
"""See https://docs.python.org/3/library/audit_events.html."""


class NotSimulated(RuntimeError):
    """Code of a simulated process does what the world does not have; the message says what.

    It fails the run, also if that code handles it.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "not simulated", "exception": self})


def refused(call: str, what: str) -> NotSimulated:
    """Return the error of a call that needs what the world does not have."""
    return NotSimulated(
        f"{call}: a process of a simulated world has no {what}. "
        "Have the test put a plain Python object in the place of what is called"
    )


class NoInputOutput(asyncio.AbstractEventLoop):
    """The methods of an event loop that a simulated one refuses."""


def _refusal(name: str, what: str) -> Callable[..., NoReturn]:
    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise refused(f"loop.{name}", what)

    return refuse


for _what, _names in _METHODS.items():
    for _name in _names.split():
        setattr(NoInputOutput, _name, _refusal(_name, _what))


def _refuse_event(event: str, _arguments: object) -> None:
    what = _EVENTS.get(event)
    if what is not None and current_node() is not None:
        raise refused(event, what)


@cache  # a hook cannot be removed
def refuse_events() -> None:
    """From now on refuse what goes past the event loop, in simulated processes."""
    sys.addaudithook(_refuse_event)


_start_thread = threading.Thread.start
_start_process = multiprocessing.process.BaseProcess.start


def start_thread(thread: threading.Thread) -> None:
    """Stand in for `threading.Thread.start`, of which older Pythons have no event."""
    if current_node() is not None:
        raise refused("threading.Thread.start", THREADS)
    _start_thread(thread)


def start_process(process: multiprocessing.process.BaseProcess) -> None:
    """Stand in for the `start` of all kinds of `multiprocessing.Process`."""
    if current_node() is not None:
        raise refused("multiprocessing.Process.start", PROCESSES)
    _start_process(process)
