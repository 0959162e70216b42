"""At the limits: what refused calls cost, and what watchers that do not read cost the others."""

import argparse
import statistics
import time
from collections.abc import Sequence

from benchmarks.gauge import Ceiling, Committed, Gauge, add_reading
from benchmarks.processes import BareServer, BenchmarkError, Generator, resident_bytes
from benchmarks.run import Run
from benchmarks.scenarios.watch import NO_HEARTBEATS, PATIENCE_SECONDS
from benchmarks.stats import percentiles
from benchmarks.targets import Server

IN_FLIGHT = 128
JOBS = 100
STALLED = 20
RATE = 300
"""Changes a second."""

STALL_SECONDS = 3.0
"""Until the server is held up by those that do not read."""

MIB = 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--watches", type=int, default=1_000, metavar="N", help="that read; default: 1,000"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=0.5,
        metavar="M",
        help="of sampling the server's memory beside watches that do not read; default: 0.5",
    )


def measure(run: Run) -> None:
    """Measure refused calls, then deliveries beside stalled watches. Raises BenchmarkError."""
    _measure_refused(run)
    for name in run.databases:
        _measure_stalled(run, run.serving(name, *NO_HEARTBEATS))


def _measure_refused(run: Run) -> None:
    bare, server = run.enter(BareServer()), run.serving(run.databases[0])
    gauge, committed = Gauge(run.generators(), seconds=run.seconds), Committed()
    no_op = Ceiling(lambda: gauge.rate(bare, "create", in_flight=IN_FLIGHT))
    for _ in run.each_round():
        no_op.begin_round()
        reading = committed.checked(
            server, lambda: gauge.rate(server, "refused", in_flight=IN_FLIGHT), each=0
        )
        add_reading(run.report, "a CreateJob that is refused", "call", no_op.beside(reading))


def _measure_stalled(run: Run, server: Server) -> None:
    database = server.database.name
    run.tell(f"opening watches on {database}")
    writer, *_ = run.generators(number=1)
    readers, staller = run.generators("load.watches")
    ids = writer.do("prepare", target=server.target, jobs=JOBS)["jobs"]
    streams = run.arguments.watches
    how = {"target": server.target, "job_ids": ids}
    readers.do("watch_job", name="readers", streams=streams, **how)
    for _ in run.each_round():
        without = _deliver(run, server, writer, readers)
        staller.do("stall", streams=STALLED, **how)
        _write(server, writer, STALL_SECONDS)
        readers.do("collect", name="readers", changes=0, patience=0)
        beside = _deliver(run, server, writer, readers)
        staller.do("close", name="stalled")
        for name, value, ceiling in zip(("p50", "p99"), beside, without, strict=True):
            title = f"delivery beside {STALLED} watches that do not read, {database}, {name}"
            run.report.time(title, "ms", value, ceiling)
    run.tell("sampling memory")
    staller.do("stall", streams=STALLED, **how)
    begin = time.monotonic()
    samples: list[tuple[float, float]] = []
    while (now := time.monotonic()) < begin + run.arguments.minutes * 60 or len(samples) < 2:
        _write(server, writer, 1.0)
        readers.do("collect", name="readers", changes=0, patience=0)
        samples.append(((now - begin) / 60, resident_bytes(server.pid) / MIB))
    staller.do("close", name="stalled")
    kept = samples[len(samples) // 2 - 1 :]  # at first the server fills what it keeps at most
    slope = statistics.linear_regression(*zip(*kept, strict=True)).slope
    title = f"server's memory beside {STALLED} watches that do not read, {database}"
    run.report.cost(f"{title}: most", "MiB", max(mib for _, mib in samples))
    run.report.cost(f"{title}: growth", "MiB/min", slope)


def _deliver(
    run: Run, server: Server, writer: Generator, readers: Generator
) -> tuple[float, float]:
    """Return percentiles of the time from sending a change to a watch having it, in ms."""
    written = _write(server, writer, run.seconds)
    sent = {(job_id, version): at for job_id, version, at, _ in written}
    expected = len(written) * (run.arguments.watches // JOBS)
    deliveries = readers.do("collect", name="readers", changes=expected, patience=PATIENCE_SECONDS)[
        "deliveries"
    ]
    took = [at - sent[job_id, version] for job_id, version, at, _ in deliveries]
    if len(took) < expected / 2:
        raise BenchmarkError(f"{len(took)} of {expected} deliveries reached those that read")
    return percentiles(took)


def _write(
    server: Server, writer: Generator, seconds: float
) -> Sequence[tuple[str, int, float, float]]:
    done = writer.do("write", target=server.target, rate=RATE, seconds=seconds)
    written: Sequence[tuple[str, int, float, float]] = done["written"]
    return written
