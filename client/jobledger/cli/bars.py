"""Progress bars on a terminal: one for each job, or one for many. Needs rich, slow to load."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Final, Self

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.text import Text

from jobledger import BulkResult, Job, JobChange, JobView
from jobledger.cli.exit_codes import flush, print_note
from jobledger.cli.job_watches import View
from jobledger.cli.render import NARROW, clean, fitting_id, job_message, waits_until

_REDRAW: Final = 0.1
"""Seconds for which changes are collected before they are drawn."""

_HIDE_CURSOR: Final = "\x1b[?25l"
_SHOW_CURSOR: Final = "\x1b[?25h"
_ERASE_BELOW: Final = "\r\x1b[J"
_UP: Final = "\r\x1b[{}A"


class Bars(View, AbstractContextManager["Bars"]):
    """One bar for each job, in the order given.

    The cursor, which is hidden, stands at the first bar, and each picture erases all that is below
    it. So nothing stays of a picture whose lines a smaller terminal has wrapped, for a terminal
    keeps its cursor at the same text, nor of what it echoes, such as ^C.
    """

    shown = JobView.BASIC

    def __init__(self, job_ids: Sequence[str]) -> None:
        self._console = Console()
        self._jobs: dict[str, Job | None] = dict.fromkeys(job_ids)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        _write(_HIDE_CURSOR)
        self._loop.add_signal_handler(signal.SIGWINCH, self._draw)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_signal_handler(signal.SIGWINCH)
        for timer in (self._timer, self._due):
            if timer is not None:
                timer.cancel()
        # All of them, also those that the terminal is too small for.
        _write(_ERASE_BELOW + self._picture(len(self._jobs)) + _SHOW_CURSOR)

    def show(self, change: JobChange) -> None:
        self._jobs[change.job.id] = change.job
        if self._timer is None:
            self._timer = self._loop.call_later(_REDRAW, self._draw)

    def note(self, message: str) -> None:
        _write(_ERASE_BELOW)
        print_note(message)
        self._draw()

    def _draw(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # The cursor takes a line too.
        picture = self._picture(max(self._console.height - 1, 1))
        height = picture.count("\n")
        _write(_ERASE_BELOW + picture + (_UP.format(height) if height else ""))
        self._draw_when_due()

    def _draw_when_due(self) -> None:
        """Draw again when the next job is due: nothing tells that."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        now = datetime.now(UTC)
        times = [time for job in self._jobs.values() if job and (time := waits_until(job, now))]
        if times:
            seconds = (min(times) - now).total_seconds()
            self._due = self._loop.call_later(seconds + _REDRAW, self._draw)

    def _picture(self, count: int) -> str:
        """Draw bars on at most this many lines, and say how many more there are."""
        lines = [self._line(job) for job in self._jobs.values() if job is not None]
        if len(lines) > count:
            hidden = len(lines) - count + 1
            lines[count - 1 :] = [Text(f"and {hidden} more", "dim")]
        with self._console.capture() as capture:
            for line in lines:
                line.truncate(self._console.width, overflow="ellipsis")
                self._console.print(line, no_wrap=True)
        return capture.get()

    def _line(self, job: Job) -> Text:
        width = self._console.width
        # A Text is not interpreted as markup.
        line = Text(clean(fitting_id(job, width)))
        if width >= NARROW:
            bar = self._console.render(ProgressBar(100, job.progress, width=10))
            line.append(" ").append_tokens((part.text, part.style) for part in bar)
        now = datetime.now(UTC)
        words = clean(job_message(job, now))
        return line.append(f" {job.progress:>3} % {job.display_state_at(now):<10} {words}")


@contextmanager
def count_bar(total: int, done: str) -> Iterator[Callable[[BulkResult], None]]:
    """Draw one bar for many jobs; nothing stays of it. Yields what shows a result.

    The cursor stays visible: an interrupt ends the program at once.

    Args:
        total: how many jobs there are.
        done: what happens to them: `deleted`.
    """
    console = Console()

    def show(result: BulkResult) -> None:
        # More may have been found since the count.
        bar = ProgressBar(max(total, result.matched, 1), result.matched, width=30)
        with console.capture() as capture:
            console.print(bar, end="")
        _write(f"{_ERASE_BELOW}{capture.get()} {done} {result.changed} of {total}")

    show(BulkResult(0, 0))
    try:
        yield show
    finally:
        _write(_ERASE_BELOW)


def _write(text: str) -> None:
    sys.stdout.write(text)
    flush()
