"""At the limits: what refused calls cost, and what watchers that do not read cost the others."""

import statistics
import time

from benchmarks.measure import Work, unary_calls
from benchmarks.processes import BenchmarkError, Generator, resident_bytes
from benchmarks.scenarios import Run, Scenario
from benchmarks.scenarios.watch import NO_HEARTBEATS, PATIENCE_SECONDS, Written
from benchmarks.stats import Kind, percentiles
from benchmarks.targets import Server

IN_FLIGHT = 128
REFUSED = Work.calls("a CreateJob that is refused", "refused", IN_FLIGHT, changes=0)
JOBS = 100
STALLED = 20
RATE = 300
"""Changes a second."""

MIB = 1024 * 1024


def measure_limits(run: Run) -> None:
    """Measure what refused calls cost, and what watchers that do not read cost the others."""
    _measure_refused(run)
    for name in run.databases:
        _measure_stalled(run, run.serving(name, *NO_HEARTBEATS), *run.generators)


SCENARIO = Scenario(
    measure_limits,
    {
        "watches": (1000, "watches that read"),
        "stall": (3.0, "seconds until the server is held up by watches that do not read"),
        "minutes": (0.5, "minutes of sampling the server's memory beside them"),
    },
)


def _measure_refused(run: Run) -> None:
    """Measure calls that are refused, beside calls that are not on the bare server."""
    targets = run.targets()
    for turn in run.each_round():
        run.compare(REFUSED, targets, turn, ceiling=unary_calls(IN_FLIGHT)[0])


def _measure_stalled(run: Run, server: Server, writer: Generator, readers: Generator) -> None:
    """Deliver changes to watches that read, with and without others that do not."""
    database = server.database.name
    run.tell(f"opening watches on {database}")
    ids = writer.do("calls.prepare", target=server.target, jobs=JOBS)["jobs"]
    how = {"target": server.target, "job_ids": ids}
    readers.do("watches.watch_job", name="readers", streams=run.arguments.watches, **how)
    for _ in run.each_round():
        without = _deliver(run, server, writer, readers)
        writer.do("watches.stall", streams=STALLED, **how)
        _write(server, writer, readers, run.arguments.stall)
        beside = _deliver(run, server, writer, readers)
        writer.do("watches.close", name="stalled")
        for name, value, ceiling in zip(("p50", "p99"), beside, without, strict=True):
            title = f"delivery beside {STALLED} watches that do not read, {database}, {name}"
            run.report.add(Kind.TIME, title, "ms", value, ceiling)
    run.tell("sampling memory")
    writer.do("watches.stall", streams=STALLED, **how)
    begin = time.monotonic()
    samples: list[tuple[float, float]] = []
    while (now := time.monotonic()) < begin + run.arguments.minutes * 60 or len(samples) < 2:
        _write(server, writer, readers, run.seconds)
        samples.append(((now - begin) / 60, resident_bytes(server.pid) / MIB))
    writer.do("watches.close", name="stalled")
    readers.do("watches.close", name="readers")
    kept = samples[len(samples) // 2 - 1 :]  # at first the server fills what it keeps at most
    slope = statistics.linear_regression(*zip(*kept, strict=True)).slope
    title = f"server beside {STALLED} watches that do not read, {database}"
    run.report.add(Kind.MEMORY, f"{title}: most", "MiB", max(mib for _, mib in samples))
    run.report.add(Kind.MEMORY, f"{title}: growth", "MiB/min", slope)


def _deliver(
    run: Run, server: Server, writer: Generator, readers: Generator
) -> tuple[float, float]:
    """Return percentiles of the time from sending a change to a watch having it, in ms."""
    written = _changes(server, writer, run.seconds)
    sent = {(job_id, version): at for job_id, version, at, _ in written}
    expected = len(written) * (run.arguments.watches // JOBS)
    deliveries = readers.do(
        "watches.collect", name="readers", changes=expected, patience=PATIENCE_SECONDS
    )["deliveries"]
    took = [at - sent[job_id, version] for job_id, version, at, _ in deliveries]
    if len(took) < expected / 2:
        raise BenchmarkError(f"{len(took)} of {expected} deliveries reached those that read")
    return percentiles(took)


def _write(server: Server, writer: Generator, readers: Generator, seconds: float) -> None:
    """Make changes, and forget their deliveries."""
    _changes(server, writer, seconds)
    readers.do("watches.collect", name="readers", changes=0, patience=0)


def _changes(server: Server, writer: Generator, seconds: float) -> Written:
    how = {"rate": RATE, "seconds": seconds}
    written: Written = writer.do("calls.write", target=server.target, **how)["written"]
    return written
