"""What watchers show: bars on a terminal; elsewhere a line per transition and per 25 %."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from jobledger import Job, JobChange

Show: TypeAlias = Callable[[JobChange], None]


def live_view() -> AbstractContextManager[Show]:
    """Open a view: a function that is given each message of each watch."""
    console = Console()
    return Bars(console) if console.is_interactive else lines()


class Bars(AbstractContextManager[Show]):
    """One bar for each job."""

    def __init__(self, console: Console) -> None:
        # No markup: a job's words are not there to be interpreted. They get the
        # width that the rest leaves.
        self._progress = Progress(
            TextColumn("{task.fields[title]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[status]:<10}", markup=False),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            expand=True,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Show:
        self._progress.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _show(self, change: JobChange) -> None:
        job = change.job
        status = job.display_state
        if job.id not in self._bars:
            self._bars[job.id] = self._progress.add_task("", title=title(job), status=status)
        self._progress.update(
            self._bars[job.id], completed=job.progress, status=status, description=words(job)
        )


def lines() -> AbstractContextManager[Show]:
    quarters: dict[str, int] = {}

    def show(change: JobChange) -> None:
        job = change.job
        for step in change.transitions:
            arrow = f"{step.from_status} -> {step.to_status}"
            print(f"{title(job):<26}{arrow}  {step.reason}".rstrip(), flush=True)
        quarter = job.progress // 25
        if quarter > quarters.get(job.id, 0) and not job.is_terminal:
            quarters[job.id] = quarter
            print(f"{title(job):<26}{job.progress:>3} %  {job.progress_message}", flush=True)

    return nullcontext(show)


def title(job: Job) -> str:
    return f"{job.job_type} {(job.parameters or {}).get('archive', job.id)}"


def words(job: Job) -> str:
    if job.error is not None:
        return f"{job.error.reason}: {job.error.message}"
    return job.progress_message
