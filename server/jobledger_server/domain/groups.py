"""Groups: jobs that no worker runs, and that end with the jobs that belong to them.

A child names its group at its creation. The commit that changes the state of children changes their
group once: its counts, its progress, and its state if that follows. So a group ends in the commit
that ends its last child, and its counts are those of its children at every version.

Pure: nothing is read or stored.
"""

from collections.abc import Mapping
from operator import attrgetter

from msgspec.structs import replace

from jobledger_server.domain.children import Children
from jobledger_server.domain.commands import Cancel, PassOn, Seal
from jobledger_server.domain.errors import (
    GroupSealed,
    JobNotFound,
    LimitExceeded,
    NotAGroup,
)
from jobledger_server.domain.job import (
    CANCELLED,
    Instant,
    Job,
    JobError,
    JobId,
    JobStatus,
    Micros,
)
from jobledger_server.domain.leases import CHILDREN_FAILED, QUEUE_EXPIRED
from jobledger_server.domain.limits import MAX_CHILDREN, MAX_GROUP_LEVELS, MAX_PROGRESS
from jobledger_server.domain.state_machine import (
    SYSTEM,
    TERMINAL,
    Decision,
    finish,
    start_group,
)

COUNT_FIELDS = ("update_time", "version", "progress", "updates", "children")
"""The fields of a group that changed counts of its children change, if its state stays."""

PASS_ON = Micros(10_000_000)
"""How long a server may take for a step of cancelling children, before another one begins."""


_NOT_COUNTED = attrgetter(*(name for name in Job.__struct_fields__ if name not in COUNT_FIELDS))


def is_count(before: Job, after: Job) -> bool:
    """Return whether a group differs in COUNT_FIELDS only."""
    return bool(_NOT_COUNTED(before) == _NOT_COUNTED(after))


def level_in(group: Job | None, *, owner: str, group_id: JobId, more: int) -> int:
    """Return the level that a group would have as a new child of this one.

    Args:
        group: The job that is to be its group, or None if it does not exist.
        owner: The owner of the child.
        group_id: The id by which the group is named.
        more: Children that are to be added to it in the same commit.

    Raises:
        JobNotFound: The owner has no such job.
        NotAGroup: It is no group.
        GroupSealed: No child is added to it any more.
        LimitExceeded: It has as many children, or as many groups above it, as it may have.
    """
    if group is None or group.user_id != owner:
        raise JobNotFound(group_id)
    children = group.children
    if children is None:
        raise NotAGroup(group.id)
    if children.sealed:
        raise GroupSealed(group.id)
    if children.total + more >= MAX_CHILDREN:
        raise LimitExceeded("jobs_per_group", MAX_CHILDREN, scope="request")
    return children.level + 1


def check_level(level: int) -> None:
    """Raise LimitExceeded if no group may have this level."""
    if level > MAX_GROUP_LEVELS:
        raise LimitExceeded("group_levels", MAX_GROUP_LEVELS, scope="request")


def recount(group: Job, change: Mapping[JobStatus, int], now: Instant) -> Decision:
    """Decide what changed states of children mean for their group.

    Args:
        group: The group.
        change: By state, how many more children are in it.
        now: The database server's time.
    """
    children = group.children
    if children is None or group.status in TERMINAL:
        return Decision(job=group, changed=False)
    counts = {
        status.value.lower(): getattr(children, status.value.lower()) + more
        for status, more in change.items()
    }
    after = replace(children, **counts)
    if after.fail_fast and change.get(JobStatus.FAILED, 0) > 0:
        after = replace(after, sealed=True, cancelling=after.open > 0)
    return _with(group, after, now)


def seal(job: Job, command: Seal, now: Instant) -> Decision:
    """Add no more children to a group. Idempotent."""
    if job.user_id != command.user_id:
        raise JobNotFound(job.id)
    if job.children is None:
        raise NotAGroup(job.id)
    if job.children.sealed:
        return Decision(job=job, changed=False)
    return _with(job, replace(job.children, sealed=True), now)


def cancel_group(group: Job, children: Children, command: Cancel, now: Instant) -> Decision:
    """Seal a group, so that its children can be cancelled one after the other."""
    # After all before it though the clock was set back: so it is known whether it came before or
    # after the start.
    now = Instant(max(now, group.update_time + 1))
    asked = replace(group, cancel_request_time=now, cancel_reason=command.reason)
    return _with(asked, replace(children, sealed=True, cancelling=children.open > 0), now)


def pass_on(job: Job, command: PassOn, now: Instant) -> Decision:
    """Note that a step of cancelling children was done, or the last one."""
    children = job.children
    if children is None or not children.cancelling or job.status in TERMINAL:
        return Decision(job=job, changed=False)
    if command.done:
        after = replace(job, children=replace(children, cancelling=False), queue_expire_time=None)
    else:
        after = replace(job, queue_expire_time=Instant(now + PASS_ON))
    # No change of the job: nobody is told which server cancels its children.
    return Decision(job=after, changed=False, renewed=True)


def expire_group(group: Job, children: Children, now: Instant) -> Decision:
    """Seal a group whose time has passed, or see that its children are cancelled.

    The server that was to cancel them may have died, so the one that decides this goes on.
    """
    if group.status in TERMINAL:
        return Decision(job=group, changed=False)
    if group.queue_expire_time is None or group.queue_expire_time > now:
        return Decision(job=group, changed=False, renewed=True)
    if children.cancelling:
        later = replace(group, queue_expire_time=Instant(now + PASS_ON))
        return Decision(job=later, changed=False, renewed=True)
    if children.total:
        return _with(group, replace(children, sealed=True), now)
    why = "no job was added to the group, nor was it sealed, within its queue timeout"
    sealed = replace(group, children=replace(children, sealed=True), queue_expire_time=None)
    return _end(sealed, JobStatus.FAILED, JobError(QUEUE_EXPIRED, why), now)


def _with(group: Job, children: Children, now: Instant) -> Decision:
    """Return the group with its children as they are now, in the state that follows."""
    progress = group.progress
    if children.total:
        progress = max(progress, MAX_PROGRESS * children.ended // children.total)
    # Its children may have changed at another server while this commit waited for the feed.
    now = max(now, group.update_time)
    if children.sealed and not children.open:
        over = replace(
            group,
            children=replace(children, cancelling=False),
            progress=progress,
            queue_expire_time=None,
        )
        return _end(over, *_outcome(over, children), now)
    starts = group.status is JobStatus.QUEUED and children.queued < children.total
    after = replace(
        group,
        children=children,
        progress=progress,
        queue_expire_time=_look_time(group, children, now, starts=starts),
    )
    if starts:
        return start_group(after, now)
    # Before its start only updates change a job; see state_machine.version_of_start.
    updates = group.updates + (group.status is JobStatus.QUEUED)
    return Decision(job=replace(after, updates=updates, update_time=now, version=group.version + 1))


def _look_time(group: Job, children: Children, now: Instant, *, starts: bool) -> Instant | None:
    """Return when the service looks at the group, if nothing happens.

    Of a group that starts it follows from its children and this time, for that is what is stored.
    """
    if not children.sealed:
        return group.queue_expire_time
    if not children.cancelling:
        return None
    was = group.children is not None and group.children.cancelling
    return group.queue_expire_time if was and not starts else Instant(now + PASS_ON)


def _outcome(group: Job, children: Children) -> tuple[JobStatus, JobError | None]:
    cancelled = group.cancel_request_time is not None
    if children.completed == children.total and not (cancelled and not children.total):
        return JobStatus.COMPLETED, None
    counts = (
        f"of {children.total} jobs of the group {children.completed} are COMPLETED,"
        f" {children.partial} PARTIAL and {children.failed} FAILED"
    )
    if children.completed or children.partial:
        return JobStatus.PARTIAL, JobError(CHILDREN_FAILED, counts)
    if cancelled:
        return JobStatus.FAILED, JobError(CANCELLED, group.cancel_reason or "cancelled")
    return JobStatus.FAILED, JobError(CHILDREN_FAILED, counts)


def _end(group: Job, target: JobStatus, error: JobError | None, now: Instant) -> Decision:
    """End a group. A QUEUED one passes through PROCESSING."""
    via = None
    if group.status is JobStatus.QUEUED:
        via = start_group(group, now)
        group = via.job
    return replace(finish(group, target, error=error, actor=SYSTEM, now=now), via=via)
