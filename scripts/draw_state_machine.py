"""Draws `docs/state_machine.md` from the code; with `--check`, tells whether it is up to date.

The words are in `state_machine.template.md`. The diagram comes from TRANSITIONS,
the tables from asking `decide` what it makes of each command in each state.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import count
from pathlib import Path

from jobledger_server.domain.commands import Create, Delete, JobCommand, LinkAsset, Report, Transit
from jobledger_server.domain.errors import DomainError
from jobledger_server.domain.machine import TERMINAL, TRANSITIONS, create, decide
from jobledger_server.domain.model import (
    Asset,
    AssetId,
    AssetLink,
    Instant,
    Job,
    JobError,
    JobStatus,
    Payload,
)

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = Path(__file__).with_name("state_machine.template.md")
PAGE = ROOT / "docs/state_machine.md"

OWNER, STRANGER = "owner", "stranger"
WORKER, OTHER_WORKER = "worker", "other-worker"
KNOWN, NEW = "known", "new"
LINK = AssetLink("image/png", "https://files.example/a.png", "", 1)
OTHER_LINK = AssetLink("image/png", "https://files.example/b.png", "", 1)

SET_BY_EVERY_TRANSITION = {"status", "version", "update_time"}
NOT_ON_THE_WIRE = {"end_digest"}

_numbers = count(1)


def _new_id() -> str:
    return f"id-{next(_numbers)}"


@dataclass(frozen=True)
class Example:
    """A job in one state, what it was before, and the report that moved it."""

    job: Job
    before: Job
    moved_by: Transit | None = None

    def to(self, target: JobStatus, worker: str = OTHER_WORKER) -> Transit:
        """Return a report that says all that may be said with its target, and all of it new."""
        error = JobError("DISK_FULL", "there was no room for the result")
        return Transit(
            job_id=self.job.id,
            target=target,
            worker_id=worker,
            progress=self.job.progress + 1,
            progress_message="drawing",
            result=Payload(b"result") if target in TERMINAL else None,
            error=error if target in (JobStatus.PARTIAL, JobStatus.FAILED) else None,
        )

    @property
    def has_run(self) -> bool:
        return self.job.attempt > 0

    def report(self, progress: int = 0) -> Report:
        return Report(job_id=self.job.id, progress=self.job.progress + progress)

    def link(self, link: AssetLink, request_id: str) -> LinkAsset:
        return LinkAsset(job_id=self.job.id, link=link, request_id=request_id)


def examples() -> dict[JobStatus, Example]:
    """Make a job in each state: a new one, and from it on along every edge."""
    command = Create(user_id=OWNER, job_type="example")
    new = create(None, command, now=Instant(1), new_id=_new_id).job
    found = {new.status: Example(new, new)}
    order = [new.status]
    for status in order:  # grows on the way
        for target in TRANSITIONS[status]:
            report = found[status].to(target, WORKER)
            moved = decide(found[status].job, report, now=Instant(2), new_id=_new_id).job
            found[target] = Example(moved, found[status].job, report)
            order.append(target)
    return found


def outcome(job: Job, command: JobCommand) -> str:
    """Say in the page's words what the service makes of a command."""
    linked = None
    if isinstance(command, LinkAsset) and command.request_id == KNOWN:
        linked = Asset(
            id=AssetId("id"), job_id=job.id, user_id=OWNER, link=LINK, create_time=Instant(1)
        )
    try:
        decision = decide(job, command, now=Instant(3), new_id=_new_id, linked=linked)
    except DomainError as refusal:
        words = re.findall("[A-Z][a-z]+", type(refusal).__name__)
        return f"`{'_'.join(words).upper()}`"
    if decision.deleted:
        return "deleted"
    if decision.transition:
        return f"**→ {decision.transition.to_status.value}**"
    if decision.changed:
        return "updated"
    return "unchanged" if decision.applied else "late"


Row = Callable[[Example], list[JobCommand]]
"""The commands that a row stands for, on the job of a column."""


def _to(target: JobStatus) -> Row:
    return lambda it: [it.to(target)]


TRANSIT_ROWS: Mapping[str, Row] = {
    "to PROCESSING, to start it": _to(JobStatus.PROCESSING),
    "to PROCESSING, again by the worker that started it": lambda it: [
        it.to(JobStatus.PROCESSING, WORKER)
    ],
    "to PROCESSING, with the job's `attempt` and more progress": lambda it: [
        replace(it.to(JobStatus.PROCESSING), attempt=it.job.attempt)
    ],
    **{
        f"to {target.value}": _to(target)
        for target in JobStatus
        if target is not JobStatus.PROCESSING
    },
    "the report that ended it, word for word": lambda it: (
        [it.moved_by] if it.moved_by and it.job.status in TERMINAL else []
    ),
    "to any state, with another `attempt`": lambda it: [
        replace(it.to(target), attempt=9) for target in JobStatus
    ],
    "to any state, with another `expected_version`": lambda it: [
        replace(it.to(target), expected_version=9) for target in JobStatus
    ],
}
REPORT_ROWS: Mapping[str, Row] = {
    "with more progress": lambda it: [it.report(+1)],
    "with nothing new (a sign of life)": lambda it: [Report(job_id=it.job.id), it.report()],
    "with less progress": lambda it: [it.report(-1)],
    "with another `attempt`": lambda it: [replace(it.report(+1), attempt=9)],
}
LINK_ROWS: Mapping[str, Row] = {
    "without a `request_id`, or with a new one": lambda it: [
        it.link(LINK, ""),
        it.link(LINK, NEW),
    ],
    "with another `attempt`": lambda it: [replace(it.link(LINK, NEW), attempt=9)],
    "again, with the same `request_id`": lambda it: [it.link(LINK, KNOWN)] * it.has_run,
    "something else, with the same `request_id`": lambda it: (
        [it.link(OTHER_LINK, KNOWN)] * it.has_run
    ),
}
DELETE_ROWS: Mapping[str, Row] = {
    "by its owner": lambda it: [Delete(job_id=it.job.id, user_id=OWNER)],
    "by anyone else": lambda it: [Delete(job_id=it.job.id, user_id=STRANGER)],
}


def diagram() -> str:
    """Draw TRANSITIONS for mermaid."""
    lines = ["    [*] --> QUEUED: CreateJob"]
    for status, targets in TRANSITIONS.items():
        for target in targets:
            call = f"Mark{target.value.title()}" if target in TERMINAL else "TransitionJob"
            lines.append(f"    {status.value} --> {target.value}: {call}")
        if not targets:
            lines.append(f"    {status.value} --> [*]")
    return "\n".join(["```mermaid", "stateDiagram-v2", "    direction LR", *lines, "```"])


def transitions(jobs: Mapping[JobStatus, Example]) -> str:
    """List every transition with the fields that it can set."""
    lines = ["| from | to | can set |", "| --- | --- | --- |"]
    for status, targets in TRANSITIONS.items():
        for target in targets:
            example = jobs[target]
            changed = [
                f"`{field.name}`"
                for field in fields(Job)
                if field.name not in SET_BY_EVERY_TRANSITION | NOT_ON_THE_WIRE
                and getattr(example.job, field.name) != getattr(example.before, field.name)
            ]
            lines.append(f"| {status.value} | {target.value} | {', '.join(changed)} |")
    return "\n".join(lines)


def grid(rows: Mapping[str, Row], jobs: Mapping[JobStatus, Example]) -> str:
    """Ask for every row in every state and tabulate the answers."""
    lines = [
        f"| asked | {' | '.join(status.value for status in jobs)} |",
        f"| --- |{' --- |' * len(jobs)}",
    ]
    for asked, row in rows.items():
        cells = []
        for example in jobs.values():
            outcomes = {outcome(example.job, command): None for command in row(example)}
            cells.append(" or ".join(outcomes) or "-")
        lines.append(f"| {asked} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw() -> str:
    """Return the page."""
    jobs = examples()
    page = TEMPLATE.read_text(encoding="utf-8")
    parts = {
        "diagram": diagram(),
        "transitions": transitions(jobs),
        "transit": grid(TRANSIT_ROWS, jobs),
        "report": grid(REPORT_ROWS, jobs),
        "link": grid(LINK_ROWS, jobs),
        "delete": grid(DELETE_ROWS, jobs),
    }
    for name, part in parts.items():
        page = page.replace(f"{{{{{name}}}}}", part)
    return page


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("page", nargs="?", type=Path, default=PAGE, help="default: %(default)s")
    arguments = parser.parse_args()
    page: Path = arguments.page
    drawn = draw()
    if not arguments.check:
        page.write_text(drawn, encoding="utf-8")
        return 0
    if page.exists() and page.read_text(encoding="utf-8") == drawn:
        return 0
    sys.stderr.write(
        f"{page.name} does not show what the code does.\n"
        "Draw it again with `make docs` and read the difference before you commit it.\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
