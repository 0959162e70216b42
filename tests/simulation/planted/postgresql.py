"""Bugs of what runs on PostgreSQL only, or differs there. No simulation has that database.

Each is looked for by the histories of two servers on each database, and then by the load on real
servers.
"""

from tests.simulation.planted.bug import Bug

DRIVER = "sql.postgresql.postgresql_driver"
STATEMENT = "sql.postgresql.batch_statement"
DIALECT = "sql.postgresql.postgresql_dialect"
WRITES = "sql.write_statements"
WEBHOOKS = "sql.webhooks"
MIGRATION = "sql.migrations.versions.0001_initial"

BUGS = {
    "old number added": Bug(
        "a report without news has the job's old sequence number, to which the newest one is added",
        "sql.batch",
        "rows[statements.report_jobs].append((job_id, *report_rows.row(job, seq)))",
        "rows[statements.report_jobs].append("
        "(job_id, *report_rows.row(job, NewSeq(before.seq) if seq is None else seq)))",
    ),
    "old row of the feed stays": Bug(
        "a change gets a row in the feed and does not take away the one before",
        "sql.batch",
        "rows[statements.move_changes].append((before.seq, seq, owner))",
        "rows[statements.insert_changes].append((seq, job_id, owner))",
    ),
    "report without an owner": Bug(
        "an owner's feed does not have the reports of its held jobs",
        "sql.feed_statements",
        "owned = union(select(indexed), held).subquery()",
        "owned = select(indexed).subquery()",
    ),
    "change without an owner": Bug(
        "a change that is no report is left out of its owner's feed",
        "sql.batch",
        "rows[statements.move_changes].append((before.seq, seq, owner))",
        "rows[statements.move_changes].append((before.seq, seq, None))",
    ),
    "missing row ignored": Bug(
        "a row of the feed is looked for where it is not, and nothing says so",
        STATEMENT,
        '            text += " RETURNING 1"\n',
        '            other = "changes.seq = new.key + (new.key % 7 = 0)::int"\n'
        '            text = text.replace("changes.seq = new.key", other)\n'
        '            text += " RETURNING 1" if statement.table.name == "jobs" else ""\n',
    ),
    "feed locked late": Bug(
        "the newest sequence number is read without the lock of the feed",
        MIGRATION,
        "INTO before, config FROM feed FOR UPDATE;",
        "INTO before, config FROM feed;",
    ),
    "snapshot older than its lock": Bug(
        "the newest sequence number is that of before the wait for the lock",
        MIGRATION,
        "DECLARE config bigint;\n"
        "BEGIN\n"
        "    SELECT compacted_seq, config_version INTO before, config FROM feed FOR UPDATE;\n"
        "    IF expected <> config THEN\n"
        "        RAISE SQLSTATE 'JL001' USING MESSAGE = 'what operators set has changed';\n"
        "    END IF;\n"
        "    before := greatest(before, (SELECT max(seq) FROM changes));",
        "DECLARE config bigint; newest bigint := (SELECT max(seq) FROM changes);\n"
        "BEGIN\n"
        "    SELECT greatest(compacted_seq, newest), config_version INTO before, config"
        " FROM feed FOR UPDATE;\n"
        "    IF expected <> config THEN\n"
        "        RAISE SQLSTATE 'JL001' USING MESSAGE = 'what operators set has changed';\n"
        "    END IF;",
    ),
    "limits read before the lock": Bug(
        "whether a key is full is read without the lock of the feed",
        MIGRATION,
        "PERFORM 1 FROM feed FOR UPDATE;\n    RETURN QUERY\n    SELECT wanted.key",
        "PERFORM 1 FROM feed;\n    RETURN QUERY\n    SELECT wanted.key",
    ),
    "groups read without their locks": Bug(
        "a group is counted as it was read, whoever changes it",
        MIGRATION,
        "        ORDER BY id FOR UPDATE SKIP LOCKED;\nEND $$",
        "        ORDER BY id;\nEND $$",
    ),
    "counters without the lock": Bug(
        "counters change without the lock of the feed where no change is written",
        DRIVER,
        "feed = LOCK_FEED if batch.locks_feed else FEED_LOCKED",
        "feed = LOCK_FEED if batch.count else FEED_LOCKED",
        gap="upserts add to a counter under the lock of its row, so no delta is lost",
    ),
    "delta lost": Bug(
        "a queue's counter is set to what is to be added where the row exists",
        WRITES,
        'ON CONFLICT ({key}) DO UPDATE SET {changes}"',
        'ON CONFLICT ({key}) DO UPDATE SET {changes}"'
        '.replace("queues.held + excluded.held", "excluded.held")',
    ),
    "array misaligned": Bug(
        "where several rows are written at once, the keys of an update are in another order",
        DRIVER,
        "values = [column for _, rows in writes for column in zip(*rows, strict=True)]",
        "values = [column if number else column[::-1] for _, rows in writes"
        " for number, column in enumerate(zip(*rows, strict=True))]",
    ),
    "copied rows numbered twice": Bug(
        "jobs that are copied have sequence numbers after those of the batch",
        DRIVER,
        "batch.writes(after=seq - batch.count)",
        "batch.writes(after=seq)",
    ),
    "job in another queue": Bug(
        "new jobs have the id of any queue that is written with them",
        "sql.statements",
        'inserted={"queue_id": new}',
        'inserted={"queue_id": f"(SELECT min(id) FROM {dialect.counted_queues})"}',
    ),
    "copied job in another queue": Bug(
        "jobs that are copied have the id of any queue that is written with them",
        DRIVER,
        "ids[queue_of_row(row)]",
        "min(ids.values())",
    ),
    "waiting queue swept": Bug(
        "a sweep deletes queues whose jobs are all scheduled, and they get another id",
        "sql.sweeps",
        '_IDLE_QUEUE = and_(queues.c.fairness_key != "", _empty(queues),',
        '_IDLE_QUEUE = and_(queues.c.fairness_key != "",'
        " queues.c.ready + queues.c.blocked + queues.c.held == 0,",
    ),
    "nothing is kept": Bug(
        "a column without a new value is emptied",
        WRITES,
        'return f"coalesce({new}, {self.table.name}.{name})" if name in self.kept else new',
        "return new",
    ),
    "cached job trusted": Bug(
        "a cached job is used although another server has written its row",
        DRIVER,
        "        self.time = None\n        return ()\n",
        "        return list(write_ids)\n",
    ),
    "job not read again": Bug(
        "a batch is written although another server changed one of its jobs since it was read",
        MIGRATION,
        "AS known (id, writer) USING (id, writer);",
        "AS known (id, writer) USING (id);",
    ),
    "job locked late": Bug(
        "a batch locks its jobs after it has seen that nobody changed them",
        MIGRATION,
        "WHERE id = ANY(ids) ORDER BY id FOR UPDATE",
        "WHERE id = ANY(ids) ORDER BY id",
    ),
    "begun with an old job": Bug(
        "a batch of several statements goes on with a job that was changed before it was locked",
        DRIVER,
        "                raise Outdated\n\n",
        "                pass\n\n",
    ),
    "jobs not locked": Bug(
        "the jobs of a batch are read without their locks",
        DIALECT,
        "return statement.with_for_update(of=jobs, skip_locked=skip)",
        "return statement.with_for_update(of=jobs, skip_locked=skip) if skip else statement",
    ),
    "changed pause ignored": Bug(
        "jobs start although a pause was set since they were found",
        MIGRATION,
        "IF expected <> config THEN",
        "IF FALSE THEN",
    ),
    "own retention ignored": Bug(
        "a search for old jobs finds those that have a retention of their own",
        "sql.feed_statements",
        "            jobs.c.retention.is_(None),\n",
        "",
    ),
    "save of an ended claim": Bug(
        "a deliverer stores how far a webhook has come although its claim has ended",
        WEBHOOKS,
        "(table.id == webhook_id) & (table.generation == generation) & _ENABLED",
        "(table.id == webhook_id) & _ENABLED",
    ),
    "part rounded down": Bug(
        "a deliverer's part of the webhooks is rounded down, so some are nobody's",
        WEBHOOKS,
        "return -(-(enabled or 0) // (deliverers or 1))",
        "return (enabled or 0) // (deliverers or 1)",
    ),
    "lease of a webhook for ever": Bug(
        "a deliverer goes on with a webhook although its lease has expired",
        WEBHOOKS,
        "kept = held & is_known & _ENABLED & (table.lease_expire_time > now)",
        "kept = held & is_known & _ENABLED",
    ),
    "start not guarded": Bug(
        "output is appended at an old end of its stream if what followed that was dropped",
        "sql.output_statements",
        '" THEN NULL ELSE new.start END"',
        '" THEN new.start ELSE new.start END"',
        gap="the primary key refuses it else; test_output.py of the ledger holds it",
    ),
    "append without its jobs": Bug(
        "a batch that only appends does not lock its jobs, nor see that they have changed",
        DRIVER,
        "            self._unlocked = write_ids\n            return same",
        "            self._unlocked = write_ids if look else {}\n            return same",
    ),
    "refused by an old job": Bug(
        "an append is refused by what its server knew of the job",
        "ledger.ledger",
        "if not again and any(map(_is_refused_output, commands, outcomes)):",
        "if False:",
    ),
    "hint of output lost": Bug(
        "other servers are not told of output",
        "sql.postgresql.notifications",
        "            self._appended.update(dict.fromkeys(ids))\n",
        "",
        gap="it costs two seconds at most; test_notifications.py holds it",
    ),
    "notification lost": Bug(
        "other servers are not notified of a commit",
        "sql.postgresql.notifications",
        "        self._send(COMMITTED)",
        "        return",
        gap="it costs half a second at most; test_notifications.py holds it",
    ),
    "queue looked up too early": Bug(
        "a job that gets another priority looks its queue up before that is written",
        DRIVER,
        " or batch.moves:\n",
        ":\n",
    ),
}
