"""At the limits: what refused calls cost, and what watchers that do not read cost the others."""

import statistics
import time

from benchmarks.measure import Target, Work, name_of, unary_calls
from benchmarks.processes import Generator, resident_bytes
from benchmarks.scenarios import Run, Scenario
from benchmarks.scenarios.watch import NO_HEARTBEATS, collect
from benchmarks.stats import Kind, percentiles

IN_FLIGHT = 128
REFUSED = Work.calls("a CreateJob that is refused", "refused", IN_FLIGHT, changes=0)
JOBS = 100
STALLED = 20
RATE = 300
"""Changes a second."""

MIB = 1024 * 1024


def measure_limits(run: Run) -> None:
    """Measure what refused calls cost, and what watchers that do not read cost the others."""
    targets = run.targets(*NO_HEARTBEATS)
    for turn in run.each_round():
        run.compare(REFUSED, targets, turn, ceiling=unary_calls(IN_FLIGHT)[0])
    for server in targets[1:]:
        _measure_stalled(run, server, *run.generators)


SCENARIO = Scenario(
    measure_limits,
    {
        "watches": (1000, "watches that read"),
        "stall": (3.0, "seconds until the server is held up by watches that do not read"),
        "minutes": (0.5, "minutes of sampling the server's memory beside them"),
    },
)


def _measure_stalled(run: Run, server: Target, writer: Generator, readers: Generator) -> None:
    """Deliver changes to watches that read, with and without others that do not."""
    database = name_of(server)
    run.tell(f"opening watches on {database}")
    ids = writer.do("calls.prepare", target=server.target, jobs=JOBS)["jobs"]
    how = {"target": server.target, "job_ids": ids}
    each = max(1, run.arguments.watches // JOBS)
    readers.do("watches.watch_job", name="readers", streams=each * JOBS, **how)

    def deliver(seconds: float) -> tuple[float, float]:
        """Make changes; return percentiles of the time until a watch has one, in ms."""
        changes = {"target": server.target, "rate": RATE, "seconds": seconds}
        written = writer.do("calls.write", **changes)["written"]
        return percentiles(collect(readers, "readers", len(written) * each))

    for _ in run.each_round():
        without = deliver(run.seconds)
        writer.do("watches.stall", streams=STALLED, **how)
        deliver(run.arguments.stall)
        beside = deliver(run.seconds)
        writer.do("watches.close", name="stalled")
        for name, value, ceiling in zip(("p50", "p99"), beside, without, strict=True):
            title = f"delivery beside {STALLED} watches that do not read, {database}, {name}"
            run.report.add(Kind.TIME, title, "ms", value, ceiling)
    run.tell("sampling memory")
    writer.do("watches.stall", streams=STALLED, **how)
    begin = time.monotonic()
    samples: list[tuple[float, float]] = []
    while (now := time.monotonic()) < begin + run.arguments.minutes * 60 or len(samples) < 2:
        deliver(run.seconds)
        samples.append(((now - begin) / 60, resident_bytes(server.pid) / MIB))
    writer.do("watches.close", name="stalled")
    readers.do("watches.close", name="readers")
    kept = samples[len(samples) // 2 - 1 :]  # at first the server fills what it keeps at most
    slope = statistics.linear_regression(*zip(*kept, strict=True)).slope
    title = f"server beside {STALLED} watches that do not read, {database}"
    run.report.add(Kind.MEMORY, f"{title}: most", "MiB", max(mib for _, mib in samples))
    run.report.add(Kind.MEMORY, f"{title}: growth", "MiB/min", slope)
