"""The signals that end a server."""

import os
import signal
from collections.abc import Collection
from contextlib import suppress


def end_signals() -> Collection[signal.Signals]:
    """Return the signals that end this process.

    SIGHUP is one of them on a terminal, which sends it when it is closed. Elsewhere it asks
    the server to read its files again.
    """
    ends = [signal.SIGTERM, signal.SIGINT]
    return [*ends, signal.SIGHUP] if _on_terminal() else ends


def _on_terminal() -> bool:
    """Whether standard input or error is the terminal that controls this process."""
    for number in (0, 2):
        with suppress(OSError):
            os.tcgetpgrp(number)
            return True
    return False
