"""Watches: memory of an idle one, one change to all of them, and how soon a change is delivered."""

import argparse
import time
from collections.abc import Sequence

from benchmarks.load.messages import USER
from benchmarks.processes import (
    BareServer,
    BenchmarkError,
    Generator,
    all_do,
    cpu_seconds,
    resident_bytes,
)
from benchmarks.run import Run
from benchmarks.stats import percentiles
from benchmarks.targets import Server

Written = Sequence[tuple[str, int, float, float]]
Deliveries = Sequence[tuple[str, int, float, float]]

NO_HEARTBEATS = ("--heartbeat", "3600", "--max-watch-age", "0")
"""They would be taken for deliveries, and a watch that ends for a failure."""

SETTLE_SECONDS = 0.5
PATIENCE_SECONDS = 10.0

FIRST = 0.1
"""The share of the changes that is left out: everything is done for the first time."""

MEMORY_BAR, FANOUT_BAR = 1.3, 1.25
P99_BAR = 20.0
"""Milliseconds, from the service's decision on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--watches", type=int, default=10_000, metavar="N", help="of one job; default: 10,000"
    )
    parser.add_argument(
        "--jobs", type=int, default=1_000, metavar="N", help="with a watch each; default: 1,000"
    )
    parser.add_argument(
        "--rate", type=int, default=1_000, metavar="N", help="changes a second; default: 1,000"
    )


def measure(run: Run) -> None:
    """Measure idle watches and the fan-out, then steady changes. Raises BenchmarkError."""
    _measure_fanout(run)
    _measure_delivery(run)


def _measure_fanout(run: Run) -> None:
    """Open the watches of one job on the bare server and on ours, and change it in turn."""
    run.tell("opening the watches of one job")
    bare = run.enter(BareServer())
    server = run.serving(run.databases[0], *NO_HEARTBEATS)
    (caller,) = run.generators(number=1)
    watchers = run.generators("load.watches")
    each = run.arguments.watches // len(watchers)
    watches = each * len(watchers)
    opened, memory = [], []
    for target in (bare, server):
        caller.do("latencies", target=target.target, operation="create", calls=100)
        jobs = caller.do("prepare", target=target.target, jobs=int(target is server))["jobs"]
        how = {
            "name": target.target,
            "target": target.target,
            "job_ids": jobs or ["any"],
            "streams": each,
        }
        before = resident_bytes(target.pid)
        opened.append(max(reply["seconds"] for reply in all_do(watchers, "watch_job", **how)))
        memory.append((resident_bytes(target.pid) - before) / watches / 1024)
        _change(caller, watchers, target, each)  # every stream does everything for the first time
    run.report.cost("an idle WatchJob: memory", "KiB", memory[1], memory[0], bar=MEMORY_BAR)
    run.report.time(f"{watches:,} watches: all opened", "s", opened[1], opened[0])
    for _ in run.each_round():
        ceiling = _change(caller, watchers, bare, each)
        middle, last = _change(caller, watchers, server, each)
        title = f"one change to {watches:,} watches"
        run.report.time(f"{title}: half have it", "ms", middle, ceiling[0])
        run.report.time(f"{title}: all have it", "ms", last, ceiling[1], bar=FANOUT_BAR)
    before, streams = resident_bytes(server.pid), max(1, watches // 10)
    caller.do("prepare", target=server.target, jobs=1)
    feed = {"name": "feed", "target": server.target, "user_id": USER, "streams": streams}
    watchers[0].do("watch_jobs", **feed)
    grown = (resident_bytes(server.pid) - before) / streams / 1024
    run.report.cost("an idle WatchJobs of one owner: memory", "KiB", grown)


def _change(
    caller: Generator, watchers: Sequence[Generator], target: BareServer | Server, each: int
) -> tuple[float, float]:
    """Make one change; return when half of the watches had it, and when all had, in milliseconds.

    From its sending: the commit is in between, and the answer may come after deliveries.
    """
    time.sleep(SETTLE_SECONDS / 2)
    if isinstance(target, Server):
        ((_, _, sent, _),) = caller.do("write", target=target.target, rate=1, seconds=1)["written"]
    else:
        sent = caller.do("report_any", target=target.target)["sent"]
    replies = all_do(
        watchers, "collect", name=target.target, changes=each, patience=PATIENCE_SECONDS
    )
    times = sorted(at - sent for reply in replies for _, _, at, _ in reply["deliveries"])
    if len(times) != each * len(watchers):
        raise BenchmarkError(f"{len(times)} of {each * len(watchers)} watches received the change")
    return times[len(times) // 2] * 1000, times[-1] * 1000


def _measure_delivery(run: Run) -> None:
    """Change jobs steadily, each with a watch of its own; and deliver all of them to one stream."""
    run.tell("opening a watch for each of many jobs")
    writer, *_ = run.generators(number=1)
    watcher, follower = run.generators("load.watches")
    servers = [run.serving(name, *NO_HEARTBEATS) for name in run.databases]
    replicas = [
        run.serving(server.database, *NO_HEARTBEATS) for server in servers if server.database.pid
    ]
    jobs, written, skipped = run.arguments.jobs, 0, 0
    for server in servers:
        ids = writer.do("prepare", target=server.target, jobs=jobs)["jobs"]
        of_each = {"target": server.target, "job_ids": ids, "streams": jobs}
        watcher.do("watch_job", name=server.target, **of_each)
    for server in (*servers, *replicas):
        of_all = {"target": server.target, "user_id": USER, "streams": 1}
        follower.do("watch_jobs", name=server.target, **of_all)
    time.sleep(SETTLE_SECONDS)
    for _ in run.each_round():
        for server in servers:
            others = [replica for replica in replicas if replica.database is server.database]
            before = [cpu_seconds(other.pid) for other in others]
            how = {"rate": run.arguments.rate, "seconds": run.seconds}
            done = writer.do("write", target=server.target, **how)["written"]
            written += len(done)
            routes = [("its own watch", watcher, server), ("a WatchJobs", follower, server)]
            routes += [("a WatchJobs at another replica", follower, other) for other in others]
            for title, generator, at in routes:
                deliveries = generator.do(
                    "collect", name=at.target, changes=len(done), patience=PATIENCE_SECONDS
                )["deliveries"]
                name = f"{run.arguments.rate:,} changes/s to {title}, {server.database.name}"
                skipped += _add(run, name, done, deliveries)
            for other, used in zip(others, before, strict=True):
                cpu = (cpu_seconds(other.pid) - used) / max(1, len(done)) * 1e6
                run.report.cost(
                    "a change read and delivered by another replica: CPU", "µs/change", cpu
                )
    run.report.note(
        f"All {written:,} changes were delivered on every route, {skipped:,} of them by a later "
        "version of their job. The service decides on a change before it commits it, so the time "
        "from the decision has the commit in it."
    )


def _add(run: Run, title: str, written: Written, deliveries: Deliveries) -> int:
    """Add how long each change took; return how many came by a later version of their job."""
    by_job: dict[str, list[tuple[int, float, float]]] = {}
    for job_id, version, at, since in deliveries:
        by_job.setdefault(job_id, []).append((version, at, since))
    from_sending, from_decision, skipped = [], [], 0
    for number, (job_id, version, sent, _) in enumerate(written):
        later = [delivery for delivery in by_job.get(job_id, ()) if delivery[0] >= version]
        if not later:
            raise BenchmarkError(f"{title}: version {version} of {job_id} was not delivered")
        came, at, since = later[0]
        skipped += came != version
        if number >= len(written) * FIRST:
            from_sending.append(at - sent)
            from_decision.append(since)
    if len(from_sending) < 2:
        raise BenchmarkError("too few changes: give it more --seconds")
    for since_what, seconds, bars in (
        ("the decision", from_decision, {"bar_value": P99_BAR} if "own" in title else {}),
        ("sending", from_sending, {}),
    ):
        p50, p99 = percentiles(seconds)
        run.report.time(f"{title}, from {since_what}, p50", "ms", p50)
        run.report.time(f"{title}, from {since_what}, p99", "ms", p99, **bars)
    return skipped
