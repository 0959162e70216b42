"""Drawing `jobledger top`. Needs rich, which is slow to load."""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from grpc import StatusCode
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobledger import AccessDenied, AsyncClient, InvalidField, Job, JobledgerError, JobTypeStats
from jobledger import DisplayState as State
from jobledger.cli.board import Board
from jobledger.cli.exit_codes import (
    ReaderLeftError,
    drawable,
    flush,
    print_note,
    stoppable,
    write,
)
from jobledger.cli.render import clean, fitting_id, job_message
from jobledger.cli.times import rough

_REDRAW: Final = 0.25
# Seconds between two readings of the counts.
_RECOUNT: Final = 2.0
# One heartbeat missed.
_QUIET: Final = 20.0

_SHORT_STATE: Final = len(State.CANCELLING)

_STYLES: Final = {
    State.UNKNOWN: "",
    State.SCHEDULED: "dim",
    State.QUEUED: "dim",
    State.RUNNING: "cyan",
    State.WAITING_FOR_RETRY: "dim",
    State.CANCELLING: "cyan",
    State.COMPLETED: "green",
    State.PARTIAL: "yellow",
    State.FAILED: "red",
    State.CANCELLED: "red",
}


_RIGHT: Final = {"width": 3, "justify": "right"}
_GAP: Final = 2


@dataclass(frozen=True, slots=True)
class _Column:
    """One column. Narrow terminals omit the columns of the highest rank; never those of rank 0."""

    title: str
    rank: int
    width: int
    cell: Callable[[Job, datetime], RenderableType]
    options: Mapping[str, Any]


def _text(words: str, style: str = "") -> Text:
    # A job's text must not be interpreted, neither as markup nor as control sequences.
    return Text(clean(words), style=style, no_wrap=True, overflow="ellipsis")


def _state(job: Job, now: datetime) -> Text:
    shown = job.display_state_at(now)
    return _text(shown, _STYLES[shown])


def _age(job: Job, now: datetime) -> Text:
    """How long it has run, or waited. Never negative, even if two machines' clocks differ."""
    since = job.start_time or job.create_time or now
    return _text(rough(((job.complete_time or now) - since).total_seconds()))


def _columns(width: int, *, state: int, owners: bool) -> list[_Column]:
    """Return the columns that fit into a terminal of this width; `state` is that of the states."""
    columns = [
        _Column("JOB", 0, 36, lambda job, _: _text(fitting_id(job, width)), {}),
        _Column("TYPE", 2, 14, lambda job, _: _text(job.job_type), {"max_width": 14}),
        _Column("OWNER", 3, 16, lambda job, _: _text(job.user_id), {"max_width": 16}),
        _Column("STATUS", 0, state, _state, {"width": state}),
        _Column("", 5, 10, lambda job, _: ProgressBar(100, job.progress, width=10), {"width": 10}),
        _Column("%", 0, 3, lambda job, _: _text(f"{job.progress}"), _RIGHT),
        _Column("AGE", 1, 4, _age, {**_RIGHT, "width": 4}),
        _Column("MESSAGE", 4, 12, lambda job, now: _text(job_message(job, now)), {"ratio": 1}),
        _Column("WORKER", 6, 20, lambda job, _: _text(job.worker_id), {"max_width": 20}),
    ]
    if not owners:
        columns = [column for column in columns if column.title != "OWNER"]
    chosen, left = [], width + _GAP
    for column in sorted(columns, key=lambda column: column.rank):
        if column.rank == 0 or column.width + _GAP <= left:
            chosen.append(column.title)
            left -= column.width + _GAP
    return [column for column in columns if column.title in chosen]


class View:
    """Draws the board."""

    def __init__(self, board: Board, title: str, *, owners: bool) -> None:
        self._board = board
        self._title = title
        self._owners = owners
        self.disconnected = False
        self.stats: list[JobTypeStats] | None = None
        """The counts of the service, if the caller may read them."""

    def table(self, width: int, count: int) -> RenderableType:
        """Draw at most `count` jobs, and say how many more there are."""
        now, jobs = datetime.now(UTC), self._board.first(count)
        # Most states are short, and in a narrow terminal the longest would hide the types.
        state = max([_SHORT_STATE, *(len(job.display_state_at(now)) for job in jobs)])
        columns = _columns(width, state=state, owners=self._owners)
        stretches = any("ratio" in column.options for column in columns)
        table = Table(box=None, pad_edge=False, expand=stretches, header_style="bold")
        for column in columns:
            table.add_column(column.title, no_wrap=True, overflow="ellipsis", **column.options)
        for job in jobs:
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
        facts = [
            *(self._counted() if self.stats is None else _summary(self.stats)),
            f"{board.rate():.1f} changes/s" if board.synced else "listing",
        ]
        if self.disconnected:
            facts.append("connection lost, reconnecting")
        elif board.silence() > _QUIET:
            facts.append(f"no message for {board.silence():.0f} s")
        return _text("  ".join([*facts, self._title]), "bold")

    def _counted(self) -> list[str]:
        """Return how many of the jobs that are shown are in which state."""
        counts = self._board.counts()
        return [
            f"{counts[State.RUNNING] + counts[State.CANCELLING]} running",
            *(
                [f"{waiting} waiting for retry"]
                if (waiting := counts[State.WAITING_FOR_RETRY])
                else []
            ),
            f"{counts[State.QUEUED]} queued",
            *([f"{scheduled} scheduled"] if (scheduled := counts[State.SCHEDULED]) else []),
        ]


def _summary(stats: Sequence[JobTypeStats]) -> list[str]:
    """Return the counts of all types together; which ones wait for what only the service knows."""
    blocked = sum(one.blocked for one in stats)
    scheduled = sum(one.scheduled for one in stats)
    paused = sum(one.pause is not None for one in stats)
    oldest = max((one.oldest_wait for one in stats if one.oldest_wait is not None), default=None)
    ended = sum(some.count for one in stats for some in one.ended_last_minute)
    return [
        f"{sum(one.held for one in stats)} held",
        f"{sum(one.ready for one in stats)} ready"
        + ("" if oldest is None else f" up to {rough(oldest.total_seconds())}"),
        *([f"{blocked} blocked"] if blocked else []),
        *([f"{scheduled} scheduled"] if scheduled else []),
        *([f"{paused} {'type' if paused == 1 else 'types'} paused"] if paused else []),
        f"{ended} ended/min",
    ]


async def _read_stats(client: AsyncClient, options: Mapping[str, Any], view: View) -> bool:
    """Read the counts; return whether to do so again.

    They are of all users, so nothing is read for the jobs of one, or for those with some labels.
    """
    if not options["all_users"] or options["labels"]:
        return False
    try:
        view.stats = [
            one
            async for one in client.admin.list_job_type_stats(options["job_types"], page_size=1000)
        ]
    except (AccessDenied, InvalidField):
        return False
    except JobledgerError as error:
        view.stats = None  # old counts would look like new ones
        return error.code is not StatusCode.UNIMPLEMENTED
    return True


async def draw_live(client: AsyncClient, options: Mapping[str, Any], title: str) -> None:
    """Draw until stopped."""
    notes: list[str] = []
    board = Board(time.monotonic)
    view = View(board, title, owners=options["all_users"])
    console = Console()

    def on_gap(error: JobledgerError) -> None:
        notes.append(f"the jobs were listed again: {error}")
        board.clear()

    def on_disconnect(_error: JobledgerError) -> None:
        view.disconnected = True

    def on_reconnect() -> None:
        view.disconnected = False

    async def redraw(live: Live) -> None:
        while drawable():  # rich draws nothing once the terminal is gone, without an error
            live.refresh()
            await asyncio.sleep(_REDRAW)
        raise ReaderLeftError

    async def recount() -> None:
        while True:
            if not await _read_stats(client, options, view):
                return
            await asyncio.sleep(_RECOUNT)

    # Drawn by the loop that also takes in the events: a thread of rich's own would read the board
    # while it changes.
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
                client.watch_jobs(
                    on_gap=on_gap,
                    on_disconnect=on_disconnect,
                    on_reconnect=on_reconnect,
                    heartbeats=5,
                    **options,
                ) as events,
            ):
                group.create_task(redraw(live))
                group.create_task(recount())
                async for event in events:
                    board.take(event)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        # On the normal screen, which was restored.
        for note in notes:
            print_note(note)


async def draw_once(client: AsyncClient, options: Mapping[str, Any], title: str) -> None:
    """Draw all jobs as they are now."""
    board = Board(time.monotonic)
    async with client.watch_jobs(**options) as events:
        async for event in events:
            board.take(event)
            if event.synced:
                break
    console = Console()
    view = View(board, title, owners=options["all_users"])
    await _read_stats(client, options, view)
    # Not written by rich, which exits with a code of its own if the pipe is broken.
    with console.capture() as capture:
        console.print(view.table(console.width, len(board)))
    write(capture.get().rstrip("\n"))
    flush()
