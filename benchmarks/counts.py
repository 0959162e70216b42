"""What one batch asks of the database: counted, on a server that nobody else calls.

A call that comes alone is a batch of its own.
"""

from collections.abc import Mapping

from benchmarks.counted import counted_server
from benchmarks.processes import Generator
from benchmarks.run import Run
from benchmarks.targets import PROGRAMS, new_database

CALLS = 50
"""Of each operation, one after the other: what the server asks for itself meanwhile is little."""

JOBS = 10


def add_counts(run: Run, operations: Mapping[str, str], calls: int = CALLS) -> None:
    """Add statements, round trips and bytes for each batch of these operations.

    Args:
        run: whose databases are measured.
        operations: what `load.calls` names them, and what the figures do.
        calls: batches of each that are counted.
    """
    run.tell("counting statements")
    cluster = run.cluster()
    with Generator("load.calls") as caller:
        for name in run.databases:
            database = run.enter(new_database(name, run.folder, cluster=cluster))
            with counted_server(database, cluster, PROGRAMS) as counter:
                target = counter.server.target
                caller.do("prepare", target=target, jobs=JOBS)
                for operation, title in operations.items():
                    # The first one does everything once.
                    caller.do("latencies", target=target, operation=operation, calls=2)
                    before = counter.read()
                    caller.do("latencies", target=target, operation=operation, calls=calls)
                    after = counter.read()
                    figure = f"{title} alone, {name}"
                    statements = (after.statements - before.statements) / calls
                    run.report.cost(f"{figure}: statements", "1/batch", statements)
                    if after.round_trips is not None and before.round_trips is not None:
                        trips = (after.round_trips - before.round_trips) / calls
                        run.report.cost(f"{figure}: round trips", "1/batch", trips)
                    wal = (after.wal - before.wal) / calls
                    run.report.cost(f"{figure}: write-ahead log", "B/batch", wal)
