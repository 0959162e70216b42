"""The counters of queues and concurrency keys, and the statements that change them.

See domain/queues.py: what changes is a `Tally`, of the decisions that are written with it.
"""

from collections.abc import Collection, Iterator, Sequence

from jobledger_server.domain.queues import KeyCount, Tally, rule_name
from jobledger_server.sql.dialect import Dialect
from jobledger_server.sql.driver import WriteStatement
from jobledger_server.sql.rows import Row
from jobledger_server.sql.tables import PHASES, QUEUE_NAME, ended, levels, limit_keys, queues

_LEVEL_COLUMNS = ("job_type", "priority", "vtime", *PHASES)
_QUEUE_COLUMNS = ("job_type", "priority", "fairness_key", "claimed", *PHASES)
_KEY_COLUMNS = ("key", "name", "running", "blocked", "recheck")
_ENDED_COLUMNS = ("job_type", "time", "status", "reason", "count")


class Counting:
    """The statements for a dialect. Each adds rows to a table of counters."""

    def __init__(self, dialect: Dialect) -> None:
        def added(table: str, *columns: str) -> dict[str, str]:
            return {name: f"{table}.{name} + excluded.{name}" for name in columns}

        # A sweep may delete the row while this waits for the feed. The queues of this statement
        # begin at its virtual time as it was before, and so does the row.
        before = (
            "coalesce((SELECT old.vtime FROM levels AS old"
            " WHERE old.job_type = new.job_type AND old.priority = new.priority), 0)"
        )
        self.levels = dialect.count(
            levels,
            _LEVEL_COLUMNS,
            {
                "vtime": _greatest("levels.vtime", "excluded.vtime"),
                "writes": "levels.writes + 1",
                **added("levels", *PHASES),
            },
            inserted={"vtime": _greatest("new.vtime", before), "writes": "1"},
        )
        # A queue that was empty begins at the virtual time of its level, unless its own is later.
        begins = "queues.claimable = 0 AND queues.ready + excluded.ready > 0"
        begun = _greatest("queues.vtime", "excluded.vtime")
        self.queues = dialect.count(
            queues,
            _QUEUE_COLUMNS,
            {
                "vtime": f"CASE WHEN {begins} THEN {begun} ELSE queues.vtime END"
                " + excluded.claimed",
                "claimable": "CASE WHEN queues.ready + excluded.ready > 0 THEN 1 ELSE 0 END",
                **added("queues", "claimed", *PHASES),
            },
            key=QUEUE_NAME,
            inserted={
                "vtime": before,
                "claimable": "CASE WHEN new.ready > 0 THEN 1 ELSE 0 END",
            },
        )
        blocked = "limit_keys.blocked + excluded.blocked > 0 AND excluded.recheck = 1"
        self.keys = dialect.count(
            limit_keys,
            _KEY_COLUMNS,
            {
                "recheck": f"CASE WHEN limit_keys.recheck = 1 OR ({blocked}) THEN 1 ELSE 0 END",
                **added("limit_keys", "running", "blocked"),
            },
        )
        self.ended = dialect.count(ended, _ENDED_COLUMNS, added("ended", "count"))

    def rows(
        self, tally: Tally, settled: Collection[str] = ()
    ) -> Iterator[tuple[WriteStatement, Sequence[Row]]]:
        """Yield the statements with the rows of a tally, but for those without rows.

        `settled` are the keys whose free slots are given to blocked jobs by the same decisions.
        """
        changes = (
            (self.levels, [(*level, *counts) for level, counts in tally.levels.items()]),
            (
                self.queues,
                [(*name, queue.claimed, *queue.phases) for name, queue in tally.queues.items()],
            ),
            (
                self.keys,
                [
                    (
                        key,
                        rule_name(key),
                        count.running,
                        count.blocked,
                        int(count.recheck or (count.freed and key not in settled)),
                    )
                    for key, count in tally.keys.items()
                    if count != KeyCount()
                ],
            ),
            (
                self.ended,
                [
                    (job_type, time, status.value, reason, count)
                    for (job_type, time, status, reason), count in tally.ended.items()
                ],
            ),
        )
        yield from ((statement, rows) for statement, rows in changes if rows)


def _greatest(first: str, second: str) -> str:
    return f"CASE WHEN {first} > {second} THEN {first} ELSE {second} END"
