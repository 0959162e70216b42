"""What a commit does to the turns of queues and to the marks of keys.

As the SQL does it; see jobledger_server/sql/counters.py. How many jobs there are follows from them.
"""

from collections.abc import Collection

from jobledger.testing.world.memory.rows import in_queue, with_key
from jobledger.testing.world.memory.tables import Level, Queue, Tables
from jobledger_server.domain.job import Phase
from jobledger_server.domain.queues import KeyCount, Tally


def count(tables: Tables, tally: Tally, settled: Collection[str]) -> None:
    """Write a tally, before the jobs that it was made of.

    Args:
        tables: The tables.
        tally: What the decisions change.
        settled: The keys whose free slots they give to blocked jobs.
    """
    before = {level: tables.levels[level].vtime for level in tally.levels if level in tables.levels}
    for name, (vtime, *_) in tally.levels.items():
        level = tables.levels.setdefault(name, Level())
        level.vtime = max(level.vtime, vtime)
        level.writes += 1
    for id_, counted in tally.queues.items():
        job = counted.job
        begin = before.get((job.job_type, job.priority), 0)
        queue = tables.queues.get(id_)
        if queue is None:
            tables.queues[id_] = Queue(job.job_type, job.priority, job.tenant, begin)
            continue
        ready = len(tables.members(in_queue(id_, Phase.READY)))
        if not ready and counted.phases[Phase.READY] > 0:
            # It was empty: it begins at the virtual time of its level, unless its own is later.
            queue.vtime = max(queue.vtime, begin)
        queue.vtime += counted.claimed
    for key, change in tally.keys.items():
        if change == KeyCount():
            continue
        marked = change.recheck or (change.freed and key not in settled)
        blocked = len(tables.members(with_key(key, Phase.BLOCKED))) + change.blocked
        if key not in tables.keys:
            tables.keys[key] = marked
        else:
            tables.keys[key] |= marked and blocked > 0
    tables.ended.update(tally.ended)
