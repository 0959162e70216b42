"""A terminal of a chosen size, for programs that draw on a whole screen."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

_HOME = "\x1b[H"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ALTERNATE, ORIGINAL = "\x1b[?1049h", "\x1b[?1049l"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def read_to_end(terminal: int) -> bytes:
    """Return what is written to a terminal until its other side is closed."""
    drawn = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # The other side was closed.
            break
        if not piece:
            break
        drawn += piece
    os.close(terminal)
    return drawn


class Terminal:
    """Runs one program; `screen` is what it drew last."""

    def __init__(self, start: Callable[..., Any], width: int, height: int) -> None:
        self._ours, theirs = pty.openpty()
        self._drawn = b""
        self.resize(width, height)
        self.process = start(stdin=theirs, stdout=theirs)
        os.close(theirs)

    def resize(self, width: int, height: int) -> None:
        size = struct.pack("HHHH", height, width, 0, 0)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, size)

    @property
    def drawn(self) -> str:
        """Everything that was written."""
        return self._drawn.decode(errors="replace")

    @property
    def screen(self) -> list[str]:
        """The last whole picture, line by line."""
        pictures = self.drawn.split(_HOME)
        whole = pictures[-2] if len(pictures) > 1 else ""
        return _CONTROL.sub("", whole).replace("\r", "").split("\n")

    def until(self, reached: Callable[[list[str]], object]) -> list[str]:
        """Read until a picture satisfies a condition; return it."""
        deadline = time.monotonic() + 30
        while not reached(self.screen):
            assert self._read(deadline), "\n".join(self.screen)
        return self.screen

    def finish(self) -> tuple[int, str]:
        """Read to the end; return the exit code and stderr."""
        deadline = time.monotonic() + 30
        while self._read(deadline):
            pass
        os.close(self._ours)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err

    def vanish(self) -> None:
        """Close the terminal while the program runs."""
        os.close(self._ours)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _read(self, deadline: float) -> bool:
        readable, _, _ = select.select([self._ours], [], [], max(deadline - time.monotonic(), 0))
        if not readable:
            return False
        try:
            piece = os.read(self._ours, 65536)
        except OSError:  # The other side was closed.
            return False
        self._drawn += piece
        return bool(piece)
