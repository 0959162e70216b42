"""Bugs of groups."""

from tests.simulation.planted.bug import Bug

BUGS = {
    "child not counted": Bug(
        "a group does not count a job that is added to it",
        "ledger.working_set",
        "            note(self.changed, None, decision.job)\n",
        "            pass\n",
    ),
    "count of a start lost": Bug(
        "a group does not count what claims start",
        "ledger.claims",
        "for grouped in await recount_groups(transaction, {}, changed, now):",
        "for grouped in ():",
    ),
    "ends with a job open": Bug(
        "a group ends while one of its jobs runs",
        "domain.groups",
        "    if children.sealed and not children.open:\n",
        "    if children.sealed and not children.queued and children.ended:\n",
    ),
    "sealed group grows": Bug(
        "a job is added to a group that is sealed",
        "domain.groups",
        "    if children.sealed:\n        raise GroupSealed(group.id)\n",
        "",
    ),
    "progress falls": Bug(
        "the progress of a group falls when jobs are added to it",
        "domain.groups",
        "progress = max(progress, MAX_PROGRESS * children.ended // children.total)",
        "progress = MAX_PROGRESS * children.ended // children.total",
    ),
    "fails slowly": Bug(
        "the first failure of a job does not seal its group, which is to fail fast",
        "domain.groups",
        "if after.fail_fast and change.get(JobStatus.FAILED, 0) > 0:",
        "if after.fail_fast and change.get(JobStatus.FAILED, 0) > 9:",
    ),
    "children run on": Bug(
        "the jobs of a cancelled group are not cancelled",
        "maintenance.group_canceller",
        "[_cancellation(group, child) for child in page.jobs]",
        "[]",
    ),
    "outer group forgotten": Bug(
        "a group does not count how the groups within it end",
        "ledger.groups",
        "                note(above, before, decision.job)\n",
        "",
    ),
    "group of a repetition unknown": Bug(
        "a repeated call cannot add to the group that it created",
        "ledger.working_set",
        "                    raise GroupsLocked([named.job.id])\n",
        "                    pass\n",
    ),
    "over before its batch": Bug(
        "a group that is sealed or cancelled does not see the jobs that its batch adds",
        "ledger.working_set",
        "if isinstance(command, Seal | Cancel | Expire) and self.changed.get(command.job_id):",
        "if False:",
    ),
}
