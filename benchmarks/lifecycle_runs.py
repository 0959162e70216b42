"""A number of whole lifecycles, of jobs or of etcd's keys: lived through, checked and timed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.etcd_load import PUTS
from benchmarks.etcd_server import EtcdServer
from benchmarks.lifecycle_load import IN_FLIGHT
from benchmarks.processes import BareServer, BenchmarkError, Generator, all_do, cpu_seconds
from benchmarks.subjects import Subject


@dataclass(frozen=True)
class Run:
    """What came of so many lifecycles, each as it must be.

    rate: lifecycles a second.
    cpu: milliseconds of processor time a lifecycle, of each process.
    cores: how many cores each process used.
    delays: seconds from the answer to the last call to when the watcher knew, of each lifecycle;
        negative where the watcher knew first.
    """

    lifecycles: int
    changes: int
    rate: float
    cpu: Mapping[str, float]
    cores: Mapping[str, float]
    delays: Sequence[float]


class Meter:
    """The processor time that some processes use from now on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._before = {name: cpu_seconds(pid) for name, pid in pids.items()}

    def cpu(self) -> dict[str, float]:
        """Return the seconds that each has used so far."""
        return {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}


def live_jobs(
    server: Subject | BareServer,
    owners: Generator,
    workers: Generator,
    *,
    lifecycles: int,
    pipe: Path | None,
) -> Run:
    """Let jobs be created, done and watched. Raises BenchmarkError where one was not, as it must.

    pipe: where every update is to be delivered, a named pipe between the two processes.

    They see that each watcher was told the end, and so every update; here is seen that the worker
    ended the same jobs, and that their changes are all that was committed, where anything is.
    """
    subject = server if isinstance(server, Subject) else None
    pids = {"server": server.pid, "owners": owners.pid, "worker": workers.pid}
    if subject is not None and subject.database_pid is not None:
        pids["database"] = subject.database_pid
    arguments = {
        "target": server.target,
        "jobs": lifecycles,
        "pipe": None if pipe is None else str(pipe),
    }
    seq = 0 if subject is None else subject.feed_seq()
    meter = Meter(pids)
    workers.begin("work", **arguments)
    lived = owners.do("live", **arguments)
    ended: dict[str, float] = dict(workers.end()["ended"])
    cpu = meter.cpu()
    changes = sum(version for _, _, version in lived["told"])
    if subject is not None and (committed := subject.feed_seq() - seq) != changes:
        raise BenchmarkError(
            f"the jobs have {changes} changes on {subject.database}, {committed} are in the feed"
        )
    if ended.keys() != {job_id for job_id, _, _ in lived["told"]}:
        raise BenchmarkError(f"the jobs done at {server.target} are not those watched")
    times = [(ended[job_id], told) for job_id, told, _ in lived["told"]]
    return _run(lived["begin"], times, changes, cpu)


def live_keys(etcd: EtcdServer, generators: Sequence[Generator], *, lifecycles: int) -> Run:
    """Let keys be put and watched; the load processes see that each watcher was told every put."""
    share = len(generators)
    meter = Meter({"server": etcd.pid, f"one of {share} load processes": generators[0].pid})
    replies = all_do(
        generators,
        "put",
        target=etcd.target,
        keys=lifecycles // share,
        in_flight=IN_FLIGHT // share,
    )
    cpu = meter.cpu()
    times = [(answered, told) for reply in replies for answered, told in reply["times"]]
    begin = min(reply["begin"] for reply in replies)
    return _run(begin, times, len(times) * PUTS, cpu)


def _run(
    begin: float,
    times: Sequence[tuple[float, float]],
    changes: int,
    cpu: Mapping[str, float],
) -> Run:
    lifecycles = len(times)
    told = sorted(told for _, told in times)
    # The first and the last ones had fewer beside them.
    steady = told[IN_FLIGHT:-IN_FLIGHT]
    wall = told[-1] - begin
    return Run(
        lifecycles=lifecycles,
        changes=changes,
        rate=(len(steady) - 1) / (steady[-1] - steady[0]),
        cpu={name: seconds / lifecycles * 1000 for name, seconds in cpu.items()},
        cores={name: seconds / wall for name, seconds in cpu.items()},
        delays=[told - answered for answered, told in times],
    )
