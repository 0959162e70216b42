"""Bugs of queues, limits and pauses: clients do not see what the server counts."""

from tests.simulation.planted.bug import Bug

ACCESS = "rpc.access.permissions"

BUGS = {
    "ends not counted": Bug(
        "some jobs that end are still counted",
        "domain.queues",
        "        if old is new:\n            return\n",
        "        if old is new or (new is None and after.version % 7 == 0):\n            return\n",
    ),
    "limit ignored": Bug(
        "a key that is full has free slots",
        "domain.queues",
        "return max(0, limit - self.running)",
        "return limit",
    ),
    "pause of a key ignored": Bug(
        "jobs start although their key is paused",
        "domain.queues",
        "        if self.paused:\n            return 0\n",
        "",
    ),
    "pause of a type ignored": Bug(
        "jobs start although their type is paused",
        "ledger.known_limits",
        "return job_type in self._config.paused_types",
        "return False",
    ),
    "default forgotten in a batch": Bug(
        "jobs that are created together do not have the defaults of their type",
        "ledger.working_set",
        "                decision = self._create(creation, now, new_id)",
        "                known = self.known\n"
        "                self.known = KnownLimits(known._store)\n"
        "                self.known._full = known._full\n"
        "                decision = self._create(creation, now, new_id)\n"
        "                self.known = known",
    ),
    "default applied to all": Bug(
        "a default of a type replaces what a creation says",
        "domain.type_defaults",
        "        if part & creation.silent\n",
        "",
    ),
    "changed default ignored": Bug(
        "jobs are created without the defaults that another server has set",
        "ledger.working_set",
        "return isinstance(command, Create | CreateAll) or is_start(command)",
        "return is_start(command)",
    ),
    "blocked jobs forgotten": Bug(
        "nobody looks for blocked jobs when a slot becomes free",
        "ledger.unblocking",
        "    if not freed:\n        return Unblocked()\n",
        "    if True:\n        return Unblocked(settled=freed)\n",
    ),
    "lowest priority unblocked": Bug(
        "of the blocked jobs of a key, those of the lowest priority get the slots",
        "ledger.unblocking",
        "            jobs += await transaction.find_blocked("
        "key, each.job_type, limit=ready - each.ready)\n",
        "            blocked = await transaction.find_blocked(key, each.job_type, limit=1000)\n"
        "            jobs += blocked[each.ready - ready :]\n",
    ),
    "old queue still counts": Bug(
        "a job that gets another priority is still counted where it was",
        "domain.queues",
        "            self._count(before, old, None)\n",
        "",
    ),
    "queue stays": Bug(
        "a job that gets another priority stays in its queue",
        "sql.statements",
        ', {"queue_id": moved})',
        ")",
        sqlite=True,
    ),
    "turns counted too high": Bug(
        "each turn puts its tenant far behind the others",
        "domain.queues",
        "queue.claimed += 1",
        "queue.claimed += 500",
    ),
    "fairness not checked": Bug(
        "a caller that may not creates jobs for the share of another tenant",
        ACCESS,
        'if each.fairness_key not in ("", each.user_id) and not choices.any_tenant:',
        "if False:",
    ),
    "priority not checked": Bug(
        "a caller creates jobs of a higher priority than it may",
        ACCESS,
        "if priority > caller.permissions.choices.max_priority:",
        "if False:",
    ),
    "concurrency key not checked": Bug(
        "a caller creates jobs with a concurrency key that it may not use",
        ACCESS,
        "if key and not choices.may_use(key, each.user_id):",
        "if False:",
    ),
    "created type not checked": Bug(
        "a caller creates jobs of a type that it may not create",
        ACCESS,
        "if choices.job_types is not None and each.job_type not in choices.job_types:",
        "if False:",
    ),
    "unique key ignored": Bug(
        "a creation does not look for the active job with its unique key",
        "ledger.working_set",
        "active=self.active.get(unique) if command.unique_key else None,",
        "active=None,",
    ),
}
