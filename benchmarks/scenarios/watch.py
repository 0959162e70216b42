"""Watches: memory of an idle one, one change to all of them, and how soon a change is delivered."""

import time
from collections.abc import Sequence

from benchmarks.processes import (
    BenchmarkError,
    Generator,
    all_do,
    cpu_seconds,
    resident_bytes,
)
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles
from benchmarks.targets import Server

NO_HEARTBEATS = ("--heartbeat", "3600", "--max-watch-age", "0")
"""They would be taken for deliveries, and a watch that ends for a failure."""

COMMIT = 200
"""Changes of a large commit."""

SETTLE_SECONDS = 0.1
PATIENCE_SECONDS = 30.0

P99_BAR = 20.0
"""Milliseconds, from the service's decision on."""


def measure(run: Run) -> None:
    """Measure watches: idle memory, one change and one large commit to all, steady changes."""
    servers = [run.serving(name, *NO_HEARTBEATS) for name in run.databases]
    _measure_fanout(run, servers[0])
    _measure_commits(run, servers[0])
    _measure_delivery(run, servers)


SCENARIO = Scenario(
    measure,
    {
        "watches": (10_000, "watches of one job"),
        "jobs": (1000, "jobs with a watch each"),
        "rate": (1000, "changes a second"),
    },
)


class Fanout:
    """Watches of one job, which is changed."""

    def __init__(self, server: Server, watchers: Sequence[Generator], streams: int) -> None:
        """Open the watches, and note the memory that each takes.

        Each of the watchers, which are processes, opens its share.
        """
        self._server = server
        self._watchers = watchers
        self._each = streams // len(watchers)
        self.watches = self._each * len(watchers)
        call = {"target": server.target}
        ids = watchers[0].do("calls.prepare", jobs=1, **call)["jobs"]
        watchers[0].do("calls.alone", operation="create", calls=100, **call)
        before = resident_bytes(server.pid)
        how = {"name": server.target, "job_ids": ids, "streams": self._each, **call}
        all_do(watchers, "watches.watch_job", **how)
        self.bytes_each = (resident_bytes(server.pid) - before) / self.watches
        self.change()  # every stream does some things for the first time

    def change(self) -> tuple[float, float, float]:
        """Make one change; return when half of the watches had it and when all had, and the CPU.

        In milliseconds from its sending, as the commit is in between; and seconds of the server's
        processor time for each delivery.
        """
        time.sleep(SETTLE_SECONDS)
        used = cpu_seconds(self._server.pid)
        how = {"target": self._server.target, "rate": 1, "seconds": 1}
        ((_, _, sent, _),) = self._watchers[0].do("calls.write", **how)["written"]
        how = {"name": self._server.target, "changes": self._each, "patience": PATIENCE_SECONDS}
        replies = all_do(self._watchers, "watches.collect", **how)
        used = cpu_seconds(self._server.pid) - used
        times = sorted(at - sent for reply in replies for at, _ in reply["deliveries"])
        if len(times) != self.watches:
            raise BenchmarkError(f"{len(times)} of {self.watches} watches received the change")
        return times[len(times) // 2] * 1000, times[-1] * 1000, used / self.watches

    def close(self) -> None:
        all_do(self._watchers, "watches.close", name=self._server.target)


def watch_jobs_bytes(server: Server, watcher: Generator, streams: int) -> float:
    """Return the memory of an idle WatchJobs of one owner."""
    before = resident_bytes(server.pid)
    watcher.do("watches.watch_jobs", name="feed", target=server.target, streams=streams)
    grown = resident_bytes(server.pid) - before
    watcher.do("watches.close", name="feed")
    return grown / streams


def _measure_fanout(run: Run, server: Server) -> None:
    """Open the watches of one job, and change it."""
    run.tell("opening the watches of one job")
    fanout = Fanout(server, run.generators, run.arguments.watches)
    run.report.add(Kind.MEMORY, "an idle WatchJob", "KiB", fanout.bytes_each / 1024)
    feed = watch_jobs_bytes(server, run.generators[0], max(1, fanout.watches // 10)) / 1024
    run.report.add(Kind.MEMORY, "an idle WatchJobs of one owner", "KiB", feed)
    title = f"one change to {fanout.watches:,} watches"
    for _ in run.each_round():
        half, last, cpu = fanout.change()
        run.report.add(Kind.SERVER_CPU, title, "µs/delivery", cpu * 1e6)
        run.report.add(Kind.TIME, f"{title}: half have it", "ms", half)
        run.report.add(Kind.TIME, f"{title}: all have it", "ms", last)
    fanout.close()


def _measure_commits(run: Run, server: Server) -> None:
    """Open watches of one owner's jobs, and make a commit of many changes."""
    run.tell("opening the watches of one owner")
    watchers, target = run.generators, server.target
    each = run.arguments.watches // len(watchers)
    watches = each * len(watchers)
    all_do(watchers, "watches.watch_commits", name="commits", target=target, streams=each)
    title = f"a commit of {COMMIT} changes to {watches:,} WatchJobs"
    messages = 0

    def commit() -> tuple[list[float], float]:
        """Make one; return when each message came, in ms since it was asked for, and the CPU."""
        time.sleep(SETTLE_SECONDS)
        used = cpu_seconds(server.pid)
        begin = watchers[0].do("calls.commit", target=target, jobs=COMMIT)["begin"]
        how = {"name": "commits", "changes": COMMIT * each, "patience": PATIENCE_SECONDS}
        replies = all_do(watchers, "watches.collect", **how)
        used = cpu_seconds(server.pid) - used
        if sum(reply["changes"] for reply in replies) != COMMIT * watches:
            raise BenchmarkError("not every watch received every change")
        times = sorted(at - begin for reply in replies for at, _ in reply["deliveries"])
        return [since * 1000 for since in times], used / watches * 1e6

    commit()  # every stream does some things for the first time
    for _ in run.each_round():
        times, cpu = commit()
        messages = max(messages, len(times))
        run.report.add(Kind.SERVER_CPU, title, "µs/watch", cpu)
        run.report.add(Kind.TIME, f"{title}: half have it", "ms", times[len(times) // 2])
        run.report.add(Kind.TIME, f"{title}: all have it", "ms", times[-1])
    run.report.note(f"A commit of {COMMIT} changes took {messages / watches:g} messages a watch.")
    all_do(watchers, "watches.close", name="commits")


def _measure_delivery(run: Run, servers: Sequence[Server]) -> None:
    """Change jobs steadily, each with a watch of its own; and deliver all of them to one stream."""
    run.tell("opening a watch for each of many jobs")
    writer, watcher = run.generators
    replicas = [
        run.serving(server.database, *NO_HEARTBEATS) for server in servers if server.database.pid
    ]
    jobs, skipped = run.arguments.jobs, 0
    for server in servers:
        ids = writer.do("calls.prepare", target=server.target, jobs=jobs)["jobs"]
        of_each = {"target": server.target, "job_ids": ids, "streams": jobs}
        watcher.do("watches.watch_job", name=f"jobs at {server.target}", **of_each)
    for server in (*servers, *replicas):
        watcher.do("watches.watch_jobs", name=server.target, target=server.target, streams=1)
    for _ in run.each_round():
        for server in servers:
            others = [replica for replica in replicas if replica.database is server.database]
            before = [cpu_seconds(other.pid) for other in others]
            how = {"rate": run.arguments.rate, "seconds": run.seconds}
            written = writer.do("calls.write", target=server.target, **how)["written"]
            routes = {"its own watch": f"jobs at {server.target}", "a WatchJobs": server.target}
            for other in others:
                routes["a WatchJobs at another replica"] = other.target
            for route, name in routes.items():
                took = _collect(watcher, name, len(written))
                skipped += len(written) - len(took)
                title = f"{run.arguments.rate:,} changes/s to {route}, {server.database.name}"
                p50, p99 = percentiles(took)
                bar = P99_BAR if "own" in route else None
                run.report.add(Kind.TIME, f"{title}, p50", "ms", p50)
                run.report.add(Kind.TIME, f"{title}, p99", "ms", p99, bar=bar)
            for other, used in zip(others, before, strict=True):
                cpu = (cpu_seconds(other.pid) - used) / len(written) * 1e6
                title = "a change read and delivered by another replica"
                run.report.add(Kind.SERVER_CPU, title, "µs/change", cpu)
    run.report.note(
        f"Every change was delivered on every route, {skipped:,} of them by a later version of "
        "their job. Times are from the service's decision on a change, which it then commits."
    )


def _collect(watcher: Generator, name: str, changes: int) -> list[float]:
    """Return the seconds from the service's decision on each change until it was delivered.

    Raises BenchmarkError unless exactly that many changes were, by as many messages or fewer.
    """
    how = {"name": name, "changes": changes, "patience": PATIENCE_SECONDS}
    reply = watcher.do("watches.collect", **how)
    if reply["changes"] != changes:
        raise BenchmarkError(f"{reply['changes']} of {changes} changes were delivered")
    return [since for _, since in reply["deliveries"]]
