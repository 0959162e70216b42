"""One progress bar for each job, on a terminal. Needs rich, which is slow to load."""

import sys
from contextlib import AbstractContextManager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from jobledger import JobChange
from jobledger.cli.exit_codes import print_note
from jobledger.cli.job_watches import View
from jobledger.cli.render import NARROW, clean, fitting_id, job_message


class Bars(View, AbstractContextManager["Bars"]):
    """One bar for each job."""

    def __init__(self) -> None:
        console = Console()
        self._width = console.width
        bars = [BarColumn(bar_width=10)] if self._width >= NARROW else []
        # markup off: a job's text must not be interpreted. It gets the width that is left.
        self._progress = Progress(
            TextColumn("{task.fields[title]}", markup=False),
            *bars,
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[status]:<10}", markup=False),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            expand=True,
            redirect_stderr=False,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, change: JobChange) -> None:
        job = change.job
        message, status = clean(job_message(job)), job.status.value
        title = clean(fitting_id(job, self._width))
        bar = self._bars.get(job.id)
        if bar is not None:
            self._progress.update(bar, completed=job.progress, status=status, description=message)
            return
        self._bars[job.id] = self._progress.add_task(
            message, completed=job.progress, title=title, status=status
        )

    def note(self, message: str) -> None:
        if sys.stderr.isatty():
            # Above the bars. Written to stderr, it would be overwritten by the next bars.
            self._progress.console.print(Text(f"note: {message}"))
        else:
            print_note(message)
