"""Output: what an append costs, how soon readers have it, and the memory that readers take."""

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from benchmarks.counting import SECONDS, counting
from benchmarks.load import USER
from benchmarks.measure import Work, in_order, measure, updates
from benchmarks.processes import BenchmarkError, Generator, resident_bytes
from benchmarks.scenarios import Run, Scenario
from benchmarks.scenarios.watch import NO_HEARTBEATS, PATIENCE_SECONDS, SETTLE_SECONDS
from benchmarks.stats import Kind, percentiles
from benchmarks.targets import Server
from jobledger.v1.job_service_pb2 import WatchOutputRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub

RATES = ("--owner-output-rate=1GiB", "--output-rate=1GiB")
SERVE = (*NO_HEARTBEATS, *RATES, "--job-output=64MiB", "--max-connection-idle=0")
"""Arguments of servers: as much output as there is load."""

REPORT, SMALL, LARGE = SIZES = 0, 200, 4096
"""Bytes of an update. Those of a report are not counted: what appends are compared with."""

TOGETHER = {1: "alone", 16: "in sixteens"}
"""Updates of a message."""

CPU_BARS = {"SQLite": {1: 1.0, 16: 1.1}, "PostgreSQL": {1: 0.7, 16: 0.75}}
"""How many times the processor time of reports small appends may take."""

STATEMENTS_BARS = {"SQLite": 5.0, "PostgreSQL": 1.6}
"""Of a message of small appends."""

WAL_BAR = 0.7
"""How many times the log of a report a small append may take on PostgreSQL, beside its data."""

STREAMS = 5
"""Streams of Work over which jobs are written while others read."""

LIVES = 10
"""Lives of other jobs, one after the other, for each second of that."""


def measure_output(run: Run) -> None:
    """Measure output: the cost of appends, delivery to many readers, memory, reading it back.

    Appends are compared with reports of progress, and readers with watches of those.
    """
    for name in run.databases:
        _count(run, name)
    servers = [run.serving(name, *SERVE) for name in run.databases]
    replicas = {s: run.serving(s.database, *SERVE) for s in servers if s.database.pid is not None}
    others = run.enter(Generator())
    for server in servers:
        _prepare(run, server)
    for turn in run.each_round():
        _measure_cost(run, servers, turn)
        for server in servers:
            _measure_delivery(run, server, replicas.get(server), others)
        _measure_memory(run)
    for name in run.databases:
        for size in (SMALL, LARGE):
            _measure_reading(run, run.serving(name, *SERVE), size)
    run.report.note("All that was acknowledged was read once and in order.")


SCENARIO = Scenario(
    measure_output,
    {
        "jobs": (50, "jobs with output"),
        "rate": (20, "appends a second to each of them, while others read"),
        "readers": (500, "readers, as many of each job"),
        "idle": (5000, "idle readers"),
        "megabytes": (50, "output that is read back"),
    },
)


def _work(together: int, size: int) -> Work:
    what = f"append of {size:,} B" if size else "report"
    return updates(1, together, f"{what} {TOGETHER[together]}", size)


def _prepare(run: Run, server: Server, jobs: int | None = None) -> list[str]:
    """Have the first generator make its jobs; return their ids."""
    how = {"target": server.target, "jobs": jobs or run.arguments.jobs}
    ids: list[str] = run.generators[0].do("calls.prepare", **how)["jobs"]
    return ids


def _count(run: Run, name: str) -> None:
    """Add what each update asks of the database, and how much is written for it."""
    run.tell(f"counting on {name}")
    with counting(run.database(name), arguments=SERVE) as counted:
        _prepare(run, counted.server)
        for together in TOGETHER:
            reports: dict[Kind, float] = {}
            for size in SIZES:
                work = _work(together, size)
                for seconds in (SECONDS, run.seconds):  # at first everything is done for once
                    before = counted.read()
                    done = measure(counted.server, run.generators, work, seconds).done
                after = counted.read()
                each = {kind: (count - before[kind]) / done for kind, count in after.items()}
                reports = reports or each
                bars = {Kind.STATEMENTS: STATEMENTS_BARS[name] / together}
                if name == "PostgreSQL":
                    bars[Kind.WAL] = size + WAL_BAR * reports[Kind.WAL]
                for kind in each if size else ():
                    unit = "bytes/update" if kind is Kind.WAL else "1/update"
                    bar = bars.get(kind) if size == SMALL else None
                    both = each[kind], reports[kind]
                    run.report.add(kind, f"{work.title}, {name}", unit, *both, bar=bar)


def _measure_cost(run: Run, servers: Sequence[Server], turn: int) -> None:
    for together in TOGETHER:
        of_sizes = {
            size: run.measure(_work(together, size), servers, turn)
            for size in in_order(SIZES, turn)
        }
        for server in servers:
            name = server.database.name
            used = {size: usages[server] for size, usages in of_sizes.items()}
            cost = {s: (u.server + (u.database or 0.0)) / u.done * 1e6 for s, u in used.items()}
            for size in (SMALL, LARGE):
                title = f"{_work(together, size).title}, server and database, {name}"
                bar = CPU_BARS[name][together] if size == SMALL else None
                both = cost[size], cost[REPORT]
                run.report.add(Kind.SERVER_CPU, title, "µs/update", *both, ratio_bar=bar)


def _deliver(
    run: Run,
    server: Server,
    place: Server,
    size: int,
    readers: int,
    *,
    rate: float,
    meanwhile: Callable[[], Any],
) -> list[float]:
    """Write jobs at a server, and have each read at a place by its share of the readers.

    `rate` is that of each job. Return the seconds until each of them had each update. Raises
    BenchmarkError if a byte of an append was lost or came twice.
    """
    writer, reader = run.generators
    ids = _prepare(run, server)
    each = readers // len(ids)
    kind = {"size": size} if size else {}
    command = "watches.watch_output" if size else "watches.watch_job"
    how = {"name": "output", "target": place.target, "streams": each * len(ids)}
    reader.do(command, job_ids=ids, **how, **kind)
    how = {"target": server.target, "rate": rate * len(ids), "seconds": run.seconds}
    writer.begin("calls.update", streams=STREAMS, size=size, **how)
    meanwhile()
    written = writer.end()
    changes = written["done"] * each * (size or 1)
    how = {"name": "output", "changes": changes, "patience": PATIENCE_SECONDS}
    reply = reader.do("watches.collect", **how)
    wanted = written["outputs"] * each if size else []
    if reply["changes"] != changes or sorted(reply["outputs"]) != sorted(wanted):
        raise BenchmarkError(f"{reply['changes']} of {changes} were delivered, or other ones")
    return [since for _, since in reply["deliveries"]]


def _measure_delivery(run: Run, server: Server, replica: Server | None, others: Generator) -> None:
    """Write jobs without readers, with readers here, and with some at another server."""
    lives: list[float] = []

    def live() -> None:
        calls = max(2, round(LIVES * run.seconds))
        how = {"target": server.target, "operation": "live", "calls": calls}
        lives.extend(others.do("calls.alone", **how)["each"])

    def delivered(size: int, readers: int, place: Server) -> tuple[float, ...]:
        """Return p50 and p99 of deliveries, and the p50 of other jobs' lives."""
        lives.clear()
        rate = run.arguments.rate
        took = _deliver(run, server, place, size, readers, rate=rate, meanwhile=live)
        run.generators[1].do("watches.close", name="output")
        return *percentiles(took or [0.0, 0.0]), percentiles(lives)[0]

    readers, name, add = run.arguments.readers, server.database.name, run.report.add
    live()
    alone = percentiles(lives)[0]
    *_, meanwhile = delivered(LARGE, 0, server)
    title = f"life of another job, no readers, {name}, p50"
    add(Kind.TIME, title, "ms", meanwhile, alone, ratio_bar=1.3)
    reports = delivered(REPORT, readers, server)
    for where, place, bars in (
        ("", server, (None, 0.7, 0.6)),
        (" at another server", replica, (None, 1.2, None)),
    ):
        if place is None:
            continue
        values = delivered(LARGE, readers, place)
        to = f"{readers} readers{where}, {name}"
        titles = (f"append to {to}, p50", f"append to {to}, p99", f"life of another job, {to}, p50")
        for title, value, reference, bar in zip(titles, values, reports, bars, strict=True):
            add(Kind.TIME, title, "ms", value, reference, ratio_bar=bar)


def _measure_memory(run: Run) -> None:
    """Open idle readers, and idle watches, of new servers. Each has received something."""
    each = []
    for size in (LARGE, REPORT):
        with Server(run.database(run.databases[0]), *SERVE, *run.arguments.serve) as server:
            _prepare(run, server)
            before = resident_bytes(server.pid)
            readers, rate = run.arguments.idle, 1 / run.seconds  # once
            _deliver(run, server, server, size, readers, rate=rate, meanwhile=bool)
            time.sleep(SETTLE_SECONDS)
            each.append((resident_bytes(server.pid) - before) / run.arguments.idle / 1024)
            run.generators[1].do("watches.close", name="output")
    run.report.add(Kind.MEMORY, "an idle reader", "KiB", *each, ratio_bar=1.15)


def _measure_reading(run: Run, server: Server, size: int) -> None:
    """Append to a job, each time in a commit of its own, and read it all."""
    wanted = run.arguments.megabytes * 1e6
    written = wanted if size == LARGE else wanted / 25  # which are nearly as many appends
    (job_id,) = _prepare(run, server, jobs=1)
    name, end, bar = server.database.name, 0, 0.5 if size == LARGE else None
    run.tell(f"writing {written / 1e6:g} MB to {name}")
    while end < written:
        how = {"target": server.target, "streams": 1, "window": 1, "seconds": run.seconds}
        reply = run.generators[0].do("calls.update", size=size, **how)
        ((end, checksum),) = reply["outputs"]
    with grpc.insecure_channel(server.target) as channel:
        for _ in run.each_round():
            begin, read = time.monotonic(), 0
            watch = JobServiceStub(channel).WatchOutput(
                WatchOutputRequest(job_id=job_id, user_id=USER)
            )
            for message in watch:
                read = zlib.crc32(message.data, read)
                if message.up_to_date:
                    break
            took = (time.monotonic() - begin) * wanted / end
            watch.cancel()
            if (message.next_offset, read) != (end, checksum):
                raise BenchmarkError(f"{name}: what is read is not what was appended")
            title = f"{wanted / 1e6:g} MB read back, appended in {size:,} B, {name}"
            run.report.add(Kind.TIME, title, "s", took, bar=bar)
