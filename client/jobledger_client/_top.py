"""Drawing `jobledger top`. Needs rich, which takes its time to load."""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobledger_client import AsyncClient, Job, JobledgerError, JobStatus
from jobledger_client._board import Board
from jobledger_client._ending import flush, stoppable, write
from jobledger_client._render import clean, job_words, short_id, status_name

_REDRAW: Final = 0.25
# One heartbeat missed.
_QUIET: Final = 20.0

_STYLES: Final = {
    JobStatus.JOB_STATUS_QUEUED: "dim",
    JobStatus.JOB_STATUS_PROCESSING: "cyan",
    JobStatus.JOB_STATUS_COMPLETED: "green",
    JobStatus.JOB_STATUS_PARTIAL: "yellow",
    JobStatus.JOB_STATUS_FAILED: "red",
}


@dataclass(frozen=True, slots=True)
class _Column:
    """One column; `at_least` is the width of a terminal that has room for it."""

    title: str
    at_least: int
    cell: Callable[[Job, float], RenderableType]
    options: Mapping[str, Any]


def _text(words: str, style: str = "") -> Text:
    # A job's words are not ours to interpret: neither as markup nor as control
    # sequences.
    return Text(clean(words), style=style, no_wrap=True, overflow="ellipsis")


def _status(job: Job) -> Text:
    processing = job.status == JobStatus.JOB_STATUS_PROCESSING
    cancelling = processing and job.HasField("cancel_request_time")
    words = "CANCELLING" if cancelling else status_name(job.status)
    return _text(words, _STYLES.get(job.status, ""))


def _age(job: Job, now: float) -> Text:
    """How long it runs, or waits. The clocks of two machines: never less than nothing."""
    since = job.start_time if job.HasField("start_time") else job.create_time
    end = job.complete_time.ToMicroseconds() / 1e6 if job.HasField("complete_time") else now
    seconds = max(int(end - since.ToMicroseconds() / 1e6), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return _text(f"{seconds // length}{unit}")
    return _text(f"{seconds}s")


_COLUMNS: Final = (
    _Column("JOB", 0, lambda job, _: _text(short_id(job)), {"width": 13}),
    _Column("TYPE", 48, lambda job, _: _text(job.job_type), {"max_width": 14}),
    _Column("STATUS", 0, lambda job, _: _status(job), {"width": 10}),
    _Column("", 70, lambda job, _: ProgressBar(100, job.progress, width=10), {"width": 10}),
    _Column("%", 0, lambda job, _: _text(f"{job.progress}"), {"width": 3, "justify": "right"}),
    _Column("AGE", 60, _age, {"width": 4, "justify": "right"}),
    _Column("MESSAGE", 76, lambda job, _: _text(job_words(job)), {"ratio": 1}),
    _Column("WORKER", 110, lambda job, _: _text(job.worker_id), {"max_width": 20}),
)
_OWNER: Final = _Column("OWNER", 90, lambda job, _: _text(job.user_id), {"max_width": 16})


class View:
    """How the board looks."""

    def __init__(self, board: Board, title: str, *, owners: bool) -> None:
        self._board = board
        self._title = title
        columns = [*_COLUMNS]
        if owners:
            columns.insert(2, _OWNER)
        self._columns = columns

    def table(self, width: int, count: int) -> RenderableType:
        """Draw so many jobs, and say how many more there are."""
        columns = [column for column in self._columns if column.at_least <= width]
        stretches = any("ratio" in column.options for column in columns)
        table = Table(box=None, pad_edge=False, expand=stretches, header_style="bold")
        for column in columns:
            table.add_column(column.title, no_wrap=True, overflow="ellipsis", **column.options)
        now = time.time()
        for job in self._board.first(count):
            table.add_row(*(column.cell(job, now) for column in columns))
        parts: list[RenderableType] = [self._header(), table]
        hidden = len(self._board) - count
        if hidden > 0:
            parts.append(_text(f"and {hidden} more", "dim"))
        return Group(*parts)

    def screen(self, width: int, height: int) -> RenderableType:
        """Draw as much as fits."""
        self._board.tidy()
        room = max(height - 2, 0)
        if len(self._board) > room:
            room = max(room - 1, 0)
        return self.table(width, room)

    def _header(self) -> Text:
        board = self._board
        if not board.connected:
            return _text(f"connecting: {self._title}", "bold")
        counts = board.counts()
        facts = [
            f"{counts[JobStatus.JOB_STATUS_PROCESSING]} processing",
            f"{counts[JobStatus.JOB_STATUS_QUEUED]} queued",
            f"{board.rate():.1f} changes/s" if board.synced else "listing",
        ]
        if board.silence() > _QUIET:
            facts.append(f"no word for {board.silence():.0f} s")
        return _text("  ".join([*facts, self._title]), "bold")


async def draw_live(client: AsyncClient, options: Mapping[str, Any], title: str) -> None:
    """Draw until stopped."""
    notes: list[str] = []
    board = Board(time.monotonic)
    view = View(board, title, owners=options["all_users"])
    console = Console()

    def on_gap(error: JobledgerError) -> None:
        notes.append(f"note: the jobs were listed again: {error}")
        board.begin_anew()

    async def redraw(live: Live) -> None:
        while True:
            live.refresh()
            await asyncio.sleep(_REDRAW)

    # Drawn by the loop that also takes the news in: a thread of rich's own would
    # look at the board while it changes.
    live = Live(
        console=console,
        screen=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
        get_renderable=lambda: view.screen(*console.size),
    )
    try:
        with stoppable(), live:
            asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, live.refresh)
            async with (
                asyncio.TaskGroup() as group,
                aclosing(client.watch_jobs(on_gap=on_gap, heartbeats=True, **options)) as news,
            ):
                group.create_task(redraw(live))
                async for message in news:
                    board.take(message)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        # On the screen that there was before.
        for note in notes:
            click.echo(note, err=True)


async def draw_once(client: AsyncClient, options: Mapping[str, Any], title: str) -> None:
    """Draw all jobs as they stand now."""
    board = Board(time.monotonic)
    options = {**options, "reconnect_timeout": options["connect_timeout"]}
    async with aclosing(client.watch_jobs(**options)) as news:
        async for message in news:
            board.take(message)
            if message.synced:
                break
    console = Console()
    view = View(board, title, owners=options["all_users"])
    # Written by us: rich would end a broken pipe with an exit code of its own.
    with console.capture() as capture:
        console.print(view.table(console.width, len(board)))
    write(capture.get().rstrip("\n"))
    flush()
