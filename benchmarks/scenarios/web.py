"""Event streams of one gateway: memory and CPU of each, and how soon a change is delivered."""

import sys
import time

from benchmarks.load import USER
from benchmarks.processes import (
    BenchmarkError,
    Generator,
    all_do,
    cpu_seconds,
    free_port,
    listens,
    resident_bytes,
    running,
)
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles

PATIENCE_SECONDS = 60.0
HEARTBEATS = 2
"""So many heartbeats of each stream are waited for, to measure an idle one."""

HEARTBEAT_SECONDS = 15.0


def measure(run: Run) -> None:
    """Measure event streams of browsers: idle ones, one change to all, steady changes."""
    server = run.serving(run.databases[0], "--max-watch-age", "0")
    writer, reader = run.generators
    streams, jobs = run.arguments.streams, run.arguments.jobs
    ids = writer.do("calls.prepare", target=server.target, jobs=jobs)["jobs"]
    port = free_port()
    command = [
        *(sys.executable, "-m", "jobledger_gateway", "--no-access-log"),
        *("--target", server.target, "--listen", f"127.0.0.1:{port}"),
        *("--max-streams", str(streams), "--max-client-streams", str(streams)),
        *("--max-address-streams", str(streams)),
    ]
    gateway = run.enter(running(command, run.folder / "gateway.log", lambda: listens(port)))
    before = resident_bytes(gateway)
    paths = [f"/v1/jobs/{job_id}/events?user_id={USER}" for job_id in ids]
    readers = [reader, *(run.enter(Generator()) for _ in range(run.arguments.readers - 1))]
    each = streams // len(readers)
    run.tell(f"opening {each * len(readers):,} streams")
    replies = all_do(readers, "events.open", port=port, paths=paths, streams=each)
    streams = each * len(readers)
    opened = max(reply["seconds"] for reply in replies)
    run.report.add(Kind.TIME, f"opening {streams:,} streams", "s", opened)
    memory = (resident_bytes(gateway) - before) / streams / 1024
    run.report.add(Kind.MEMORY, "an idle event stream, in the gateway", "KiB", memory)
    for _ in run.each_round():
        if run.arguments.idle:
            used = cpu_seconds(gateway)
            time.sleep(HEARTBEATS * HEARTBEAT_SECONDS)
            idle = (cpu_seconds(gateway) - used) / streams / HEARTBEATS * 1e6
            run.report.add(Kind.CLIENT_CPU, "an idle stream, in the gateway", "µs/heartbeat", idle)
        used, served = cpu_seconds(gateway), cpu_seconds(server.pid)
        how = {"rate": run.arguments.rate, "seconds": run.seconds}
        written = writer.do("calls.write", target=server.target, **how)["written"]
        streams_of = dict.fromkeys(ids, 0)
        for number in range(each):
            streams_of[ids[number % jobs]] += len(readers)
        wanted = sum(streams_of[job_id] for job_id, *_ in written)
        collected = all_do(
            readers,
            "events.collect",
            deliveries=wanted // len(readers),
            patience=PATIENCE_SECONDS,
        )
        took = [seconds for reply in collected for seconds in reply["deliveries"]]
        # Progress may be skipped where a client falls behind, never the newest.
        if not wanted / 2 < len(took) <= wanted:
            raise BenchmarkError(f"{len(took)} of {wanted} changes were delivered")
        title = f"{run.arguments.rate:,} changes/s to {wanted / len(written):g} streams each"
        p50, p99 = percentiles(took)
        run.report.add(Kind.TIME, f"{title}, p50", "ms", p50)
        run.report.add(Kind.TIME, f"{title}, p99", "ms", p99)
        used, served = cpu_seconds(gateway) - used, cpu_seconds(server.pid) - served
        run.report.add(Kind.CLIENT_CPU, f"{title}: gateway", "µs/delivery", used / len(took) * 1e6)
        run.report.add(Kind.SERVER_CPU, f"{title}: server", "µs/delivery", served / len(took) * 1e6)
    run.report.note(
        "Times are from the service's decision on a change, which it then commits, to the client's"
        " reading of the event."
    )


SCENARIO = Scenario(
    measure,
    {
        "streams": (10_000, "event streams"),
        "jobs": (1000, "jobs, each watched by an equal share of the streams"),
        "rate": (50, "changes a second"),
        "readers": (1, "processes that read the streams"),
        "idle": (1, "0 to measure no idle streams, which takes 30 s a round"),
    },
)
