"""The counters of queues and concurrency keys, and the statements that change them.

See domain/queues.py: what changes is a `Tally`, of the decisions that are written with it.
"""

from collections.abc import Collection

from jobledger_server.domain.queues import KeyCount, Tally, rule_name
from jobledger_server.sql.driver import Writes
from jobledger_server.sql.tables import PHASES, QUEUE_NAME, ended, limit_keys, queues
from jobledger_server.sql.write_statements import Insertion

# A sweep may delete the row while a batch waits for the feed. The queues of the batch begin at its
# virtual time as it was before, and so does the row.
_LEVEL = (
    "coalesce((SELECT level.vtime FROM queues AS level WHERE level.fairness_key = ''"
    " AND level.job_type = new.job_type AND level.priority = new.priority), 0)"
)

# A queue that was empty begins at the virtual time of its level, unless its own is later. That of a
# level never falls.
_RISES = "queues.fairness_key = '' OR (queues.claimable = 0 AND queues.ready + excluded.ready > 0)"

_BLOCKED = "limit_keys.blocked + excluded.blocked > 0 AND excluded.recheck = 1"


def _greatest(first: str, second: str) -> str:
    return f"CASE WHEN {first} > {second} THEN {first} ELSE {second} END"


def _added(table: str, *columns: str) -> dict[str, str]:
    return {name: f"{table}.{name} + excluded.{name}" for name in columns}


QUEUES = Insertion(
    queues,
    ("job_type", "priority", "fairness_key", "vtime", "claimed", *PHASES),
    {
        "vtime": f"CASE WHEN {_RISES} THEN {_greatest('queues.vtime', 'excluded.vtime')}"
        " ELSE queues.vtime END + excluded.claimed",
        "claimable": "CASE WHEN queues.fairness_key <> '' AND queues.ready + excluded.ready > 0"
        " THEN 1 ELSE 0 END",
        "writes": "queues.writes + 1",
        **_added("queues", "claimed", *PHASES),
    },
    key=QUEUE_NAME,
    inserted={
        "vtime": _greatest("new.vtime", _LEVEL),
        "claimable": "CASE WHEN new.fairness_key <> '' AND new.ready > 0 THEN 1 ELSE 0 END",
        "writes": "1",
    },
)
KEYS = Insertion(
    limit_keys,
    ("key", "name", "running", "blocked", "recheck"),
    {
        "recheck": f"CASE WHEN limit_keys.recheck = 1 OR ({_BLOCKED}) THEN 1 ELSE 0 END",
        **_added("limit_keys", "running", "blocked"),
    },
)
ENDED = Insertion(
    ended, ("job_type", "time", "status", "reason", "count"), _added("ended", "count")
)


def counted(tally: Tally, settled: Collection[str] = ()) -> Writes:
    """Return the statements with the rows of a tally, but for those without rows.

    `settled` are the keys whose free slots are given to blocked jobs by the same decisions.
    """
    keys = [
        (
            key,
            rule_name(key),
            count.running,
            count.blocked,
            int(count.recheck or (count.freed and key not in settled)),
        )
        for key, count in tally.keys.items()
        if count != KeyCount()
    ]
    # The levels last: SQLite may write the rows with several statements.
    rows = [(*name, 0, each.claimed, *each.phases) for name, each in tally.queues.items()]
    for level, (vtime, *phases) in tally.levels.items():
        rows.append((*level, "", vtime, 0, *phases))
    changes: Writes = (
        (QUEUES, rows),
        (KEYS, keys),
        (
            ENDED,
            [
                (job_type, time, status.value, reason, count)
                for (job_type, time, status, reason), count in tally.ended.items()
            ],
        ),
    )
    return [(statement, values) for statement, values in changes if values]
