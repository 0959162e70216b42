"""Bugs of what is decided and written."""

from tests.simulation.planted.bug import Bug

BUGS = {
    "published before the commit": Bug(
        "changes are handed on that are not committed yet",
        "ledger.ledger",
        """                        cuts=working_set.cuts(),
                        last=True,
                    )
""",
        """                        cuts=working_set.cuts(),
                    )
                    self._committed(changes)
""",
    ),
    "failure acknowledged": Bug(
        "commands are acknowledged although their commit failed",
        "ledger.ledger",
        """            self.outages.failed()
            raise
        if pieces""",
        """            self.outages.failed()
            if "changes" in locals():
                return outcomes
            raise
        if pieces""",
    ),
    "unknown retried": Bug(
        "a transaction whose outcome is unknown is tried again",
        "ledger.stale_connections",
        "if not error.stale:",
        "if False:",
        gap="all that the load asks for can be repeated without harm",
    ),
    "outage ignored": Bug(
        "leases that expired while the database was away are not extended",
        "ledger.ledger",
        "resumed_at = self.outages.resumed_at",
        "resumed_at = None",
    ),
    "no fence": Bug(
        "an attempt that lost its lease may still report",
        "domain.leases",
        "    if attempt is None:\n        return",
        "    return",
    ),
    "expires unseen": Bug(
        "the reaper believes what it found: a renewal in between does not count",
        "domain.leases",
        "if not _passed(deadline(extended), now):",
        "if job.lease_expire_time is None and not _passed(deadline(extended), now):",
    ),
    "late report applied": Bug(
        "a report that is sent again is applied again",
        "domain.decisions",
        "late_retry = 0 < command.number <= job.report_number",
        "late_retry = False",
    ),
    "report without a version": Bug(
        "a report does not make a new version",
        "domain.state_machine",
        """if job.leased else None,
        update_time=now,
        version=job.version + 1,""",
        """if job.leased else None,
        update_time=now,
        version=job.version + (job.progress < 50),""",
    ),
    "asset linked again": Bug(
        "a repeated link is not recognised by its request id",
        "domain.decisions",
        "existing = linked or named.get(command.link.name)",
        "existing = named.get(command.link.name)",
        gap="needs another link to the same name before the repetition",
    ),
    "no backoff": Bug(
        "a job whose worker lost its lease is claimable at once",
        "domain.leases",
        "pause=backoff(job), now=now)",
        "pause=Micros(0), now=now)",
    ),
    "release uses up an attempt": Bug(
        "a release counts as an attempt",
        "domain.state_machine",
        "releases=job.releases + (outcome is AttemptOutcome.RELEASED)",
        "releases=job.releases",
    ),
    "attempt keeps its number": Bug(
        "the attempt after a release has the same number",
        "domain.state_machine",
        "attempt=job.attempt + 1",
        "attempt=job.attempt + (job.quick_releases == 0)",
    ),
    "request forgotten": Bug(
        "a creation that is repeated in the same batch makes another job",
        "ledger.working_set",
        "found = self.created.get(request)",
        "found = None",
    ),
    "claimed before the commit": Bug(
        "a claim is given jobs whose start was not committed",
        "ledger.claims",
        """
            changes = await transaction.append(decisions, config_version=version, last=True)
        for decision, allocation in decided:
            if allocation is None:
                passed[decision.job.job_type] += 1
            else:
                payloads = jobs[decision.job.id].payloads
                allocation.decisions.append(replace(decision, payloads=payloads))""",
        """
            for decision, allocation in decided:
                if allocation is not None:
                    payloads = jobs[decision.job.id].payloads
                    allocation.decisions.append(replace(decision, payloads=payloads))
            changes = await transaction.append(decisions, config_version=version, last=True)""",
    ),
    "linger forgets to wake": Bug(
        "after a lingering batch, fewer commands than that wake nobody",
        "ledger.batcher",
        """if arrived in (self._queued, self._eager) else 0
        self._wake_at = 1""",
        "if arrived in (self._queued, self._eager) else 0",
    ),
    "stale cache": Bug(
        "after a transaction that was rolled back, cached jobs are still believed",
        "sql.sqlite.sqlite_driver",
        "        self._generation.invalidate()\n        await self._connection.rollback()",
        "        await self._connection.rollback()",
        sqlite=True,
        gap="a transaction that has written is known by its count of changes, too",
    ),
    "holder of a refused batch": Bug(
        "a unique key of a refused batch of creations counts as held until its commit",
        "ledger.working_set",
        "self.created, self.reruns, self.active, self.jobs = before",
        "self.created, self.reruns, _, self.jobs = before",
    ),
    "refused bytes stay": Bug(
        "what is refused for its bytes counts as waiting for ever",
        "ledger.batcher",
        "            self._items.release(caller, weight)\n",
        "            pass\n",
    ),
}
