"""Draws `docs/concepts/jobs-and-states.md` from the code; with `--check`, compares it.

The text is in `state_machine.template.md`. The diagram's transitions come from TRANSITIONS.
The tables come from the domain's decisions on each command and each deadline in each state.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from msgspec.structs import fields, replace

from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Claim,
    Create,
    Delete,
    Expire,
    JobCommand,
    LinkAsset,
    Release,
    Report,
    Update,
)
from jobledger_server.domain.decisions import create, decide
from jobledger_server.domain.errors import DomainError
from jobledger_server.domain.job import (
    Asset,
    AssetId,
    AssetLink,
    Instant,
    Job,
    JobError,
    JobId,
    JobStatus,
    Micros,
    Payload,
    Phase,
)
from jobledger_server.domain.leases import CANCEL_GRACE, SERVICE_REASONS
from jobledger_server.domain.queues import (
    NO_LIMITS,
    KeyState,
    Limits,
    block,
    claim_or_block,
    make_ready,
)
from jobledger_server.domain.state_machine import (
    TERMINAL,
    TRANSITIONS,
    Decision,
    due_time,
)

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = Path(__file__).with_name("state_machine.template.md")
PAGE = ROOT / "docs/concepts/jobs-and-states.md"

OWNER, STRANGER = "owner", "stranger"
WORKER, OTHER_WORKER = "worker", "other-worker"
KNOWN, NEW = "known", "new"
LINK = AssetLink("image/png", "https://files.example/a.png", "", 1, "a.png")
OTHER_LINK = AssetLink("image/png", "https://files.example/b.png", "", 1, "b.png")
TAKEN, TAKING = (
    AssetLink("image/png", f"https://files.example/{n}/c.png", "", 1, "c.png") for n in "12"
)

NOW, LATER = Instant(3), Instant(1_000)
KEY = "service"
FULL, PAUSED = KeyState(running=1, max_running=1), KeyState(paused=True)

LONG, LONGER = Micros(1_000_000_000), Micros(2_000_000_000)
FAR = Instant(10**15)

SET_BY_EVERY_TRANSITION = {"status", "version", "update_time"}
NOT_ON_THE_WIRE = {
    "updates",
    "attempt_time",
    "outcome_digest",
    "lease_duration",
    "releases",
    "quick_releases",
    "started_by_id",
    "retry_time",
    "queue_timeout",
    "run_timeout",
    "stall_expire_time",
}
ON_THE_WIRE = {"outcome_bytes": "result", "phase": "held"}
DEADLINES = ("queue_expire_time", "lease_expire_time", "stall_expire_time", "run_expire_time")

_numbers = count(1)


def _new_id() -> str:
    return f"id-{next(_numbers)}"


def _after(job: Job, command: JobCommand, now: Instant) -> Job:
    return decide(job, command, now=now, new_id=_new_id).job


@dataclass(frozen=True)
class Example:
    """A job in one state, the job before its last change, and the report that changed it."""

    job: Job
    before: Job
    changed_by: ChangeStatus | None = None

    def to(self, target: JobStatus, worker: str = OTHER_WORKER) -> ChangeStatus:
        """Return a report with every field that its target allows, each with a new value."""
        error = JobError("DISK_FULL", "no space for the result")
        return ChangeStatus(
            job_id=self.id,
            target=target,
            worker_id=worker,
            progress=self.job.progress + 1,
            progress_message="drawing",
            result=Payload(b"result") if target in TERMINAL else None,
            error=error if target in (JobStatus.PARTIAL, JobStatus.FAILED) else None,
        )

    @property
    def id(self) -> JobId:
        return self.job.id

    @property
    def has_run(self) -> bool:
        return self.job.attempt > 0

    @property
    def is_terminal(self) -> bool:
        return self.job.status in TERMINAL

    def finish(self, target: JobStatus) -> ChangeStatus:
        return replace(self.to(target), attempt=self.job.attempt)

    def report(self, progress: int = 0, message: str | None = None) -> Report:
        return Report(
            job_id=self.id,
            attempt=self.job.attempt,
            progress=self.job.progress + progress,
            progress_message=message,
        )

    def link(self, link: AssetLink, request_id: str) -> LinkAsset:
        return LinkAsset(job_id=self.id, attempt=self.job.attempt, link=link, request_id=request_id)

    def cancel(self, user: str = OWNER) -> Cancel:
        return Cancel(job_id=self.id, user_id=user)

    def update(self, **fields: Any) -> Update:
        return Update(job_id=self.id, user_id=OWNER, **fields)

    def release(self, delay: int = 0) -> Release:
        return Release(job_id=self.id, attempt=self.job.attempt, delay=Micros(delay))

    def fail(self) -> ChangeStatus:
        return replace(self.finish(JobStatus.FAILED), retryable=True)

    def cancelled(self) -> Job:
        return _after(self.job, self.cancel(), NOW)


Columns = Mapping[str, Sequence[Example]]
"""The states by name, each with example jobs: a cell lists the outcomes for all of them."""


def examples() -> Columns:
    """Make jobs in each state: a new one, and from it along every transition."""
    command = Create(
        user_id=OWNER,
        job_type="example",
        max_attempts=2,
        queue_timeout=LONG,
        stall_timeout=LONG,
        run_timeout=LONGER,
    )
    new = create(None, command, now=Instant(1), new_id=_new_id).job
    found = {new.status: Example(new, new)}
    order = [new.status]
    for status in order:  # the loop appends to it
        for target in TRANSITIONS[status]:
            report = found[status].to(target, WORKER)
            after = _after(found[status].job, report, Instant(2))
            found[target] = Example(after, found[status].job, report)
            order.append(target)
    columns: dict[str, Sequence[Example]] = {}
    for status, example in found.items():
        if status in TERMINAL:
            columns["terminal"] = [*columns.get("terminal", ()), example]
            continue
        if status is not JobStatus.PROCESSING:
            columns["QUEUED, ready"] = [example]
            later = replace(command, schedule_time=LATER)
            scheduled = create(None, later, now=Instant(1), new_id=_new_id).job
            columns["QUEUED, scheduled"] = [Example(scheduled, scheduled)]
            continue
        leased = example.job
        expiring = replace(leased, lease_expire_time=NOW)
        lost = _after(expiring, Expire(job_id=leased.id), NOW)
        failure = example.fail()
        columns["PROCESSING, held"] = [example]
        columns["PROCESSING, ready"] = [
            Example(_after(leased, example.release(), NOW), leased),
            Example(make_ready(replace(lost, retry_time=NOW), NOW).job, leased),
        ]
        columns["PROCESSING, scheduled"] = [
            Example(_after(leased, failure, NOW), leased, failure),
            Example(lost, leased),
            Example(_after(leased, example.release(LONG), NOW), leased),
        ]
    return columns


@dataclass(frozen=True)
class Request:
    """A command, its job, the time of the decision, and what an operator has set."""

    job: Job
    command: JobCommand | Claim
    now: Instant = NOW
    resumed_at: Instant | None = None
    limits: Limits = NO_LIMITS


def outcome(request: Request) -> str:
    """Return the cell for the domain's decision on a command."""
    job, command = request.job, request.command
    by_id, taken = (
        Asset(
            id=AssetId("id"), job_id=job.id, link=link, create_time=Instant(1), attempt=job.attempt
        )
        for link in (LINK, TAKEN)
    )
    repeats = isinstance(command, LinkAsset) and command.request_id == KNOWN
    try:
        if isinstance(command, Claim):
            decision = claim_or_block(job, command, request.now, {KEY: request.limits.key})
        else:
            decision = decide(
                job,
                command,
                now=request.now,
                new_id=_new_id,
                linked=by_id if repeats else None,
                named={TAKEN.name: taken},
                resumed_at=request.resumed_at,
                limits=request.limits,
            )
    except DomainError as refusal:
        name = type(refusal).__name__.removesuffix("Reached")
        words = re.findall("[A-Z][a-z]+", name)
        return f"`{'_'.join(words).upper()}`"
    return "skipped" if decision is None else _cell(job, decision)


def _cell(job: Job, decision: Decision) -> str:
    if decision.deleted:
        return "deleted"
    if not decision.changed:
        if (decision.job.lease_expire_time, decision.job.stall_expire_time) != (
            job.lease_expire_time,
            job.stall_expire_time,
        ):
            return "renewed"
        if decision.renewed and decision.job.phase is Phase.BLOCKED:
            return "blocked"
        return "unchanged" if decision.applied else "late"
    if decision.transition:
        decisions = [decision.via, decision] if decision.via else [decision]
        path = [each.transition.to_status.value for each in decisions if each.transition]
        reason = decision.transition.reason
        shown = f" `{reason}`" if reason in SERVICE_REASONS else ""
        return f"**→ {' → '.join(path)}**{shown}"
    if decision.job.attempt > job.attempt:
        return "next attempt"
    if job.leased and not decision.job.leased:
        return "requeued" if decision.job.phase is Phase.READY else "pauses"
    return "updated"


Row = Callable[[Example], Sequence[JobCommand | Request]]
"""Returns the requests of a row for one example job of a column."""


def _to(target: JobStatus) -> Row:
    return lambda it: [it.finish(target) if target in TERMINAL else it.to(target)]


def _passes(
    time: str, *, cancelled: bool = False, attempts: int = 2, in_outage: bool = False
) -> Row:
    """Let one of a job's deadlines pass, and no other; for a terminal job, all of them."""

    def row(it: Example) -> list[Request]:
        expire = Expire(job_id=it.id)
        if it.is_terminal:
            return [Request(it.job, expire, FAR, FAR if in_outage else None)]
        if cancelled and not it.job.leased:
            return []
        job = replace(it.cancelled() if cancelled else it.job, max_attempts=attempts)
        due: Instant | None = getattr(job, time)
        if due is None:
            return []
        later: dict[str, Any] = {
            other: FAR for other in DEADLINES if other != time and getattr(job, other) is not None
        }
        job = replace(job, **later)
        now = Instant(due + CANCEL_GRACE * (time not in DEADLINES))
        return [Request(job, expire, now, now if in_outage else None)]

    return row


CLAIM = Claim(
    worker_id=OTHER_WORKER, job_types=frozenset(["example"]), max_jobs=1, lease_duration=LONG
)


def _keyed(job: Job) -> Job:
    return replace(job, concurrency_key=KEY)


def _starts(limits: Limits) -> Row:
    """Start a job by its id that is ready."""
    return lambda it: (
        [Request(_keyed(it.job), it.to(JobStatus.PROCESSING), NOW, None, limits)]
        * (it.job.phase is Phase.READY)
    )


CLAIM_ROWS: Mapping[str, Row] = {
    "at once": lambda it: [Request(it.job, CLAIM)],
    "after its `schedule_time`": lambda it: [
        Request(make_ready(it.job, due).job, CLAIM, due)
        for due in [due_time(it.job)]
        if due is not None
    ],
    "while its limit is reached, or its key is paused": lambda it: [
        Request(_keyed(it.job), CLAIM, NOW, None, Limits(key))
        for key in (FULL, PAUSED)
        if it.job.phase is Phase.READY
    ],
    "while it is blocked": lambda it: (
        [Request(block(_keyed(it.job)).job, CLAIM)] * (it.job.phase is Phase.READY)
    ),
    "after a deadline of the job": lambda it: [Request(it.job, CLAIM, FAR)],
}
TRANSIT_ROWS: Mapping[str, Row] = {
    "to PROCESSING, to start it": _to(JobStatus.PROCESSING),
    "to PROCESSING, while its type or its key is paused": lambda it: [
        request
        for limits in (Limits(type_paused=True), Limits(PAUSED))
        for request in _starts(limits)(it)
    ],
    "to PROCESSING, while its limit is reached": _starts(Limits(FULL)),
    "to PROCESSING, again by the worker that started it": lambda it: [
        it.to(JobStatus.PROCESSING, WORKER)
    ],
    **{
        f"to {target.value}": _to(target)
        for target in JobStatus
        if target is not JobStatus.PROCESSING
    },
    "to FAILED, `retryable`, and attempts are left": lambda it: [it.fail()] * (it.job.leased),
    "to FAILED, `retryable`, and none is left": lambda it: (
        [Request(replace(it.job, max_attempts=1), it.fail())] * it.job.leased
    ),
    "to FAILED, `retryable`, after cancellation was requested": lambda it: (
        [Request(it.cancelled(), it.fail())] * it.job.leased
    ),
    "the retryable failure after which it waits, again": lambda it: (
        [it.changed_by] if it.changed_by and not it.is_terminal and not it.job.leased else []
    ),
    "to FAILED, `retryable`, with `any_attempt`": lambda it: (
        [replace(it.fail(), attempt=None, error=JobError("OTHER", "other"))]
    ),
    "to COMPLETED, with `any_attempt`": lambda it: [it.to(JobStatus.COMPLETED)],
    "the report that finished it, with the same content": lambda it: (
        [it.changed_by] if it.changed_by and it.is_terminal else []
    ),
    "to any state, with another `expected_version`": lambda it: [
        replace(it.to(target), expected_version=9) for target in JobStatus
    ],
}
REPORT_ROWS: Mapping[str, Row] = {
    "with more progress": lambda it: [it.report(+1)],
    "with nothing new (a heartbeat)": lambda it: [it.report()],
    "with a `checkpoint`": lambda it: [replace(it.report(), checkpoint=Payload(b"here"))],
    "with less progress": lambda it: [it.report(-1)],
    "with less progress and another message": lambda it: [it.report(-1, "shading")],
    "with more progress and `any_attempt`": lambda it: [replace(it.report(+1), attempt=None)],
}
LINK_ROWS: Mapping[str, Row] = {
    "without a `request_id`, or with a new one": lambda it: [
        it.link(LINK, ""),
        it.link(LINK, NEW),
    ],
    "the same with `any_attempt`": lambda it: [replace(it.link(LINK, NEW), attempt=None)],
    "again, with the same `request_id`": lambda it: [it.link(LINK, KNOWN)] * it.has_run,
    "something else, with the same `request_id`": lambda it: (
        [it.link(OTHER_LINK, KNOWN)] * it.has_run
    ),
    "with the `name` of another asset of this attempt": lambda it: (
        [it.link(TAKING, NEW)] * it.has_run
    ),
}
EVERY_ROWS: Mapping[str, Row] = {
    "with another `attempt`": lambda it: [
        *(replace(it.to(target), attempt=9) for target in JobStatus if target in TERMINAL),
        replace(it.report(+1), attempt=9),
        replace(it.link(LINK, NEW), attempt=9),
        replace(it.release(), attempt=9),
    ],
    "for another owner's job": lambda it: [
        it.cancel(STRANGER),
        Delete(job_id=it.id, user_id=STRANGER),
    ],
}
RELEASE_ROWS: Mapping[str, Row] = {
    "with the job's `attempt`": lambda it: [it.release()],
    "the same, with a `delay`": lambda it: [it.release(LONG)] * it.job.leased,
    "the same, for the second time in a row within its lease": lambda it: (
        [Request(replace(it.job, quick_releases=1), it.release())] * it.job.leased
    ),
    "the same, after cancellation was requested": lambda it: (
        [Request(it.cancelled(), it.release())] * (it.job.leased or it.is_terminal)
    ),
}
CANCEL_ROWS: Mapping[str, Row] = {
    "by its owner": lambda it: [it.cancel()],
    "by its owner, again": lambda it: [Request(it.cancelled(), it.cancel())],
}
UPDATE_ROWS: Mapping[str, Row] = {
    "another `priority`": lambda it: [it.update(priority=9)],
    "a later `schedule_time`": lambda it: [it.update(schedule_time=FAR)],
    "a `schedule_time` that has passed": lambda it: [it.update(schedule_time=Instant(1))],
    "the `priority` that it has": lambda it: [it.update(priority=it.job.priority)],
    "another `priority`, with another `expected_version`": lambda it: [
        it.update(priority=9, expected_version=99)
    ],
}
TIME_ROWS: Mapping[str, Row] = {
    "`queue_expire_time`": _passes("queue_expire_time"),
    "`lease_expire_time`, and attempts are left": _passes("lease_expire_time"),
    "`lease_expire_time`, and none is left": _passes("lease_expire_time", attempts=1),
    "`lease_expire_time`, after cancellation was requested": _passes(
        "lease_expire_time", cancelled=True
    ),
    "`lease_expire_time`, during an outage": _passes(
        "lease_expire_time", attempts=1, in_outage=True
    ),
    "`progress_time` + `stall_timeout`, and attempts are left": _passes("stall_expire_time"),
    "`progress_time` + `stall_timeout`, and none is left": _passes("stall_expire_time", attempts=1),
    "`progress_time` + `stall_timeout`, during an outage": _passes(
        "stall_expire_time", attempts=1, in_outage=True
    ),
    "30 seconds since `cancel_request_time`": _passes("cancel_request_time", cancelled=True),
    "`run_expire_time`": _passes("run_expire_time"),
}
DELETE_ROWS: Mapping[str, Row] = {
    "by its owner": lambda it: [Delete(job_id=it.id, user_id=OWNER)],
}

INSIDE = """\
    state QUEUED {
        direction LR
        [*] --> ready
        [*] --> scheduled: with a schedule_time
        scheduled --> ready: schedule_time
        ready --> blocked: its limit is reached
        blocked --> ready: a slot is free
    }
    state PROCESSING {
        direction LR
        state "ready" as ready_again
        state "scheduled" as pausing
        state "blocked" as blocked_again
        [*] --> held
        held --> ready_again: ReleaseJob
        held --> pausing: lost lease, stall or retryable failure, and attempts are left
        held --> pausing: ReleaseJob with a delay, or again and again
        pausing --> ready_again: schedule_time
        ready_again --> blocked_again: its limit is reached
        blocked_again --> ready_again: a slot is free
        ready_again --> held: ClaimJobs
    }"""


CALLS = {
    JobStatus.PROCESSING: "ClaimJobs",
    JobStatus.FAILED: "MarkFailed, or no attempt is left",
}


def diagram() -> str:
    """Draw TRANSITIONS for mermaid."""
    lines = ["    [*] --> QUEUED: CreateJob"]
    for status, targets in TRANSITIONS.items():
        for target in targets:
            call = CALLS.get(target, f"Mark{target.value.title()}")
            lines.append(f"    {status.value} --> {target.value}: {call}")
        if not targets:
            lines.append(f"    {status.value} --> [*]")
    lines.append(INSIDE)
    return "\n".join(["```mermaid", "stateDiagram-v2", "    direction LR", *lines, "```"])


def transitions(columns: Columns) -> str:
    """List every transition with the fields that it can change."""
    lines = ["| from | to | can change |", "| --- | --- | --- |"]
    for status, targets in TRANSITIONS.items():
        for target in targets:
            example = next(
                example
                for column in columns.values()
                for example in column
                if (example.before.status, example.job.status) == (status, target)
            )
            changed = [
                f"`{ON_THE_WIRE.get(field.name, field.name)}`"
                for field in fields(Job)
                if field.name not in SET_BY_EVERY_TRANSITION | NOT_ON_THE_WIRE
                and getattr(example.job, field.name) != getattr(example.before, field.name)
            ]
            lines.append(f"| {status.value} | {target.value} | {', '.join(changed)} |")
    return "\n".join(lines)


def grid(rows: Mapping[str, Row], columns: Columns, head: str = "request") -> str:
    """Return a table of the outcomes of every row in every state."""
    lines = [
        f"| {head} | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
    ]
    for name, row in rows.items():
        cells = []
        for column in columns.values():
            outcomes: dict[str, None] = {}  # a set that keeps its order
            for example in column:
                for item in row(example):
                    it = item if isinstance(item, Request) else Request(example.job, item)
                    outcomes[outcome(it)] = None
            cells.append(" or ".join(outcomes) or "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw() -> str:
    """Return the page."""
    columns = examples()
    page = TEMPLATE.read_text(encoding="utf-8")
    parts = {
        "diagram": diagram(),
        "transitions": transitions(columns),
        "every": grid(EVERY_ROWS, columns),
        "claim": grid(CLAIM_ROWS, columns),
        "transit": grid(TRANSIT_ROWS, columns),
        "report": grid(REPORT_ROWS, columns),
        "link": grid(LINK_ROWS, columns),
        "release": grid(RELEASE_ROWS, columns),
        "cancel": grid(CANCEL_ROWS, columns),
        "update": grid(UPDATE_ROWS, columns),
        "time": grid(TIME_ROWS, columns, head="deadline"),
        "delete": grid(DELETE_ROWS, columns),
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
        f"{page.name} differs from what the code does.\n"
        "Draw it again with `make docs`, and review the difference before you commit it.\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
