"""What a commit does to the counters. As the SQL does it; see jobledger_server/sql/counters.py."""

from collections.abc import Collection, Sequence

from jobledger_server.domain.job import Phase
from jobledger_server.domain.queues import KeyCount, Tally
from jobledger_world.memory.tables import Key, Level, Queue, Tables


def count(tables: Tables, tally: Tally, settled: Collection[str]) -> None:
    """Write a tally, before the jobs that it was made of.

    Args:
        tables: The tables.
        tally: What the decisions change.
        settled: The keys whose free slots they give to blocked jobs.
    """
    before = {level: tables.levels[level].vtime for level in tally.levels if level in tables.levels}
    for level_name, (vtime, *phases) in tally.levels.items():
        level = tables.levels.setdefault(level_name, Level())
        level.vtime = max(level.vtime, vtime)
        level.writes += 1
        _add(level.phases, phases)
    for whose, counted in tally.queues.items():
        begin = before.get((whose.job_type, whose.priority), 0)
        queue = tables.queues.get(whose)
        if queue is None:
            tables.queues[whose] = Queue(begin, list(counted.phases))
            continue
        if not queue.phases[Phase.READY] and counted.phases[Phase.READY] > 0:
            # It was empty: it begins at the virtual time of its level, unless its own is later.
            queue.vtime = max(queue.vtime, begin)
        queue.vtime += counted.claimed
        _add(queue.phases, counted.phases)
    for name, change in tally.keys.items():
        if change == KeyCount():
            continue
        marked = change.recheck or (change.freed and name not in settled)
        key = tables.keys.setdefault(name, Key(recheck=marked))
        key.running += change.running
        key.blocked += change.blocked
        key.recheck |= marked and key.blocked > 0
    tables.ended.update(tally.ended)


def _add(counts: list[int], changes: Sequence[int]) -> None:
    counts[:] = map(sum, zip(counts, changes, strict=True))
