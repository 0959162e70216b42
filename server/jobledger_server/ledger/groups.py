"""Changes groups in the commit that changes the state of their children."""

from collections import Counter
from collections.abc import Collection, Mapping

from jobledger_server.domain.groups import recount
from jobledger_server.domain.job import Instant, Job, JobId, JobStatus
from jobledger_server.domain.state_machine import Decision
from jobledger_server.store import GroupsLocked, Transaction

Changed = dict[JobId, Counter[JobStatus]]
"""By group, how many more of its children a commit has in each state."""


def note(changed: Changed, before: Job | None, after: Job) -> None:
    """Count the change of a child for its group; None before its creation."""
    status = None if before is None else before.status
    if after.group_id is None or status is after.status:
        return
    counts = changed.setdefault(after.group_id, Counter())
    counts[after.status] += 1
    if status is not None:
        counts[status] -= 1


async def recount_groups(
    transaction: Transaction,
    loaded: Mapping[JobId, Job],
    changed: Changed,
    now: Instant,
    *,
    looked_for: Collection[JobId] = (),
) -> list[Decision]:
    """Decide what a commit means for the groups of its jobs, and for the groups of these.

    Each group changes once, after all groups within it.

    Args:
        transaction: The transaction, with the jobs of the commit loaded.
        loaded: These jobs as they are after the commit, perhaps with some of the groups.
        changed: What the commit changes.
        now: The database server's time.
        looked_for: Groups that are among the loaded jobs, or do not exist.

    Raises:
        GroupsLocked: It is to be decided again.
    """
    decisions: list[Decision] = []
    groups: dict[JobId, Job] = {}
    levels: dict[int, Changed] = {}

    async def enter(found: Changed) -> None:
        missing = [each for each in found if each not in loaded and each not in looked_for]
        locked = await transaction.lock_groups(missing) if missing else {}
        if left := [each for each in missing if each not in locked]:
            raise GroupsLocked(left)
        for group_id, counts in found.items():
            group = groups.get(group_id) or loaded.get(group_id) or locked.get(group_id)
            if group is not None and group.children is not None:
                groups[group_id] = group
                level = levels.setdefault(group.children.level, {})
                level.setdefault(group_id, Counter()).update(counts)

    await enter(changed)
    while levels:
        above: Changed = {}
        for group_id, counts in levels.pop(max(levels)).items():
            before = groups[group_id]
            decision = recount(before, counts, now)
            if decision.changed:
                decisions.append(decision)
                groups[group_id] = decision.job
                note(above, before, decision.job)
        await enter(above)
    return decisions
