"""Delivers webhooks while everything fails by turns, and counts what was lost or out of order.

python -m tests.robustness.webhooks [--duration SECONDS] [--seed N]

Two gateways deliver the jobs of one server to three receivers. The server is killed, the gateways
are killed and frozen for longer than a lease, and the receivers are down, slow, silent and wrong by
turns. In the end all are well, and every end of a job must have arrived at every receiver.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobledger import AsyncClient, Job, JobledgerError, JobStatus
from tests.support.server_process import ServerProcess
from tests.support.webhook_receiver import Received, Receiver

JOBS_AT_ONCE = 8
PAUSE_SECONDS = 0.3
"""Between two jobs of each of these."""

SETTLE_SECONDS = 90.0
"""How long nothing may arrive after the last fault until the rest counts as lost. Each gateway that
was killed has held its webhooks for a lease, so much may wait."""

LEASE_SECONDS = 30.0


EVERY = (JobStatus.PROCESSING, JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED)


@dataclass
class Subscription:
    """A receiver with its webhook, and what it does at the moment."""

    name: str
    random: random.Random
    transitions: tuple[JobStatus, ...] = ()
    receiver: Receiver = field(init=False)
    secret: str = ""
    webhook_id: str = ""
    mode: str = "well"
    modes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.receiver = Receiver(self.answer)

    async def answer(self, request: Received) -> Any:
        self.modes[self.mode] += 1
        match self.mode:
            case "slow":
                await asyncio.sleep(self.random.uniform(0.1, 2.0))
            case "silent":
                await asyncio.sleep(20)
                raise EOFError
            case "busy":
                return 429, [("retry-after", "1")]
            case "wrong":
                status = self.random.choice([200, 301, 404, 500, 503, None])
                if status is None:
                    raise EOFError  # in the middle of an answer
                return status
            case "forgetful":  # it has the event, and its answer is lost
                self.receiver.succeeded.append(request)
                raise EOFError
        return 204


@dataclass
class Gateway:
    """`jobledger-gateway --webhooks`, through all its restarts."""

    target: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = str(Path(sys.executable).with_name("jobledger-gateway"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    *("--target", self.target, "--listen", "127.0.0.1:0", "--webhooks"),
                    *("--webhook-allow-network", "127.0.0.0/8", "--webhook-max-backoff", "2s"),
                    *("--webhook-give-up", "1d"),
                ],
                stdout=log,
                stderr=log,
            )

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Report:
    """What has happened, and what was promised and not kept."""

    jobs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    deliveries: int = 0
    attempts: int = 0
    repeats: int = 0
    violations: list[str] = field(default_factory=list)

    def text(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.jobs} jobs ended; faults: {faults}\n"
            f"{self.attempts} requests, {self.deliveries} deliveries, {self.repeats} of them"
            f" repeated\n{len(self.violations)} violations"
            + "".join(f"\n  {each}" for each in self.violations[:20])
        )


async def run(duration: float, seed: int, folder: Path) -> Report:
    """Run the load and the faults; return what was found."""
    chance = random.Random(seed)
    report = Report()
    subscriptions = [
        Subscription("ends", random.Random(chance.random())),
        Subscription("all transitions", random.Random(chance.random()), transitions=EVERY),
        Subscription("all, too", random.Random(chance.random()), transitions=EVERY),
    ]
    server = ServerProcess(folder, arguments=["--max-watch-age", "20s"])
    gateways = [Gateway(server.target, folder / f"gateway{number}.log") for number in range(2)]
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        client = await stack.enter_async_context(AsyncClient(server.target, user_id="ada"))
        for each in subscriptions:
            await stack.enter_async_context(each.receiver)
            made = await client.create_webhook(each.receiver.url, transitions=each.transitions)
            each.secret, each.webhook_id = made.secret, made.webhook.id
        for gateway in gateways:
            stack.callback(gateway.kill)
            gateway.start()
        async with asyncio.timeout(duration * 2 + 60):
            ends = time.monotonic() + duration
            async with asyncio.TaskGroup() as tasks:
                for _ in range(JOBS_AT_ONCE):
                    tasks.create_task(_load(client, ends, random.Random(chance.random())))
                tasks.create_task(
                    _break(server, gateways, ends, random.Random(chance.random()), report.faults)
                )
                for each in subscriptions:
                    tasks.create_task(_change_modes(each, ends, report.faults))
        jobs = [job async for job in client.list_jobs(page_size=1000)]
        await _end_all(client, jobs)
        jobs = [job async for job in client.list_jobs(page_size=1000)]
        report.jobs = len(jobs)
        await _settled(subscriptions, jobs)
        for each in subscriptions:
            _judge(each, jobs, report)
        for webhook in [each async for each in client.list_webhooks()]:
            if webhook.given_up or webhook.disable_reason:
                report.violations.append(f"given up: {webhook}")
    return report


async def _load(client: AsyncClient, ends: float, chance: random.Random) -> None:
    while time.monotonic() < ends:
        with contextlib.suppress(JobledgerError):
            job = await client.create_job("render", labels={"size": "a" * chance.randint(0, 200)})
            started = await client.transition_job(job.id, JobStatus.PROCESSING)
            await client.update_progress(job.id, 50, attempt=started.attempt)
            if chance.random() < 0.2:
                await client.mark_failed(job.id, "no luck", attempt=started.attempt)
            else:
                await client.mark_completed(job.id, attempt=started.attempt)
        await asyncio.sleep(chance.uniform(0, 2 * PAUSE_SECONDS))


async def _end_all(client: AsyncClient, jobs: Sequence[Job]) -> None:
    """End the jobs that a fault has left: a cancellation ends those that nobody holds."""
    for job in jobs:
        if job.status is JobStatus.PROCESSING:
            await client.mark_failed(job.id, "left", attempt=job.attempt)
        elif not job.status.is_terminal:
            await client.cancel_job(job.id)


async def _break(
    server: ServerProcess,
    gateways: Sequence[Gateway],
    ends: float,
    chance: random.Random,
    faults: Counter[str],
) -> None:
    async def pause(shortest: float, longest: float) -> None:
        await asyncio.sleep(chance.uniform(shortest, longest))

    while time.monotonic() < ends:
        await pause(2, 6)
        gateway = chance.choice(gateways)
        (what,) = chance.choices(
            ["server killed", "gateway killed", "gateway ended", "gateway frozen"], [4, 3, 2, 1]
        )
        faults[what] += 1
        match what:
            case "server killed":
                await asyncio.to_thread(server.kill)
                await pause(0, 3)
                await asyncio.to_thread(server.start)
            case "gateway killed":
                await asyncio.to_thread(gateway.kill)
                await pause(0, 3)
                gateway.start()
            case "gateway ended":
                gateway.signal(signal.SIGTERM)
                assert gateway.process is not None
                code = await asyncio.to_thread(gateway.process.wait, 30)
                # One that has just been started does not handle the signal yet.
                assert code in {0, -signal.SIGTERM}, f"{gateway.log} ended with {code}"
                gateway.start()
            case "gateway frozen":  # it wakes up when another one has its webhooks
                gateway.signal(signal.SIGSTOP)
                thawed = time.monotonic() + LEASE_SECONDS + chance.uniform(0, 8)
                while time.monotonic() < thawed:
                    await pause(4, 10)
                    for other in gateways:
                        if other is not gateway:
                            await asyncio.to_thread(other.kill)
                            other.start()
                gateway.signal(signal.SIGCONT)


async def _change_modes(each: Subscription, ends: float, faults: Counter[str]) -> None:
    while time.monotonic() < ends:
        mode = each.random.choice(
            ["well", "well", "down", "slow", "silent", "busy", "wrong", "forgetful"]
        )
        faults[f"receiver {mode}"] += mode != "well"
        each.mode = mode
        if mode == "down":
            await each.receiver.kill()
        await asyncio.sleep(each.random.uniform(1, 6))
        if mode == "down":
            await each.receiver.start()
    each.mode = "well"


def _wanted(each: Subscription, jobs: Sequence[Job]) -> set[tuple[str, str]]:
    """Return the job and the state of each event that a receiver is to get."""
    wanted = {(job.id, job.status.value.lower()) for job in jobs}
    if each.transitions:
        wanted |= {(job.id, "processing") for job in jobs}
    return wanted


def _got(each: Subscription) -> set[tuple[str, str]]:
    return {(one.job_id, one.event["type"].rpartition(".")[2]) for one in each.receiver.succeeded}


async def _settled(subscriptions: Sequence[Subscription], jobs: Sequence[Job]) -> None:
    async def until(each: Subscription) -> None:
        wanted = _wanted(each, jobs)
        while not wanted <= _got(each):
            await asyncio.sleep(2)

    settling = asyncio.gather(*map(until, subscriptions))
    before, arrived = -1, 0
    while not settling.done() and arrived != before:
        before = arrived
        await asyncio.wait([settling], timeout=SETTLE_SECONDS)
        arrived = sum(len({one.id for one in each.receiver.succeeded}) for each in subscriptions)
    settling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await settling


def _judge(each: Subscription, jobs: Sequence[Job], report: Report) -> None:
    received = each.receiver.succeeded
    report.attempts += len(each.receiver.received)
    report.deliveries += len(received)
    report.repeats += len(received) - len({one.id for one in received})

    def violated(what: str) -> None:
        report.violations.append(f"{each.name}: {what}")

    for job_id, state in sorted(_wanted(each, jobs) - _got(each)):
        violated(f"lost: job {job_id}, {state}")
    versions: defaultdict[str, list[int]] = defaultdict(list)
    events: dict[str, Any] = {}
    for one in received:
        if not one.is_signed(each.secret):
            violated(f"the signature of {one.id}")
        known = events.setdefault(one.id, one.event["data"]["transition"])
        if known != one.event["data"]["transition"]:
            violated(f"two events with the id {one.id}")
        if one.version not in versions[one.job_id]:
            versions[one.job_id].append(one.version)
    last = {job.id: job.version for job in jobs}
    for job_id, order in versions.items():
        if order != sorted(order):
            violated(f"order: job {job_id}, versions {order}")
        if order[-1] != last[job_id]:
            violated(f"job {job_id} ended with version {last[job_id]}, delivered were {order}")


def main() -> int:
    """Return 0 where nothing was lost or out of order, else 1."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of faults")
    parser.add_argument("--seed", type=int, help="decides what happens; default: by chance")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the logs there")
    arguments = parser.parse_args()
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    _tell(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        logs = arguments.logs or Path(folder)
        os.makedirs(logs, exist_ok=True)  # noqa: PTH103
        report = asyncio.run(run(arguments.duration, seed, logs))
    _tell(report.text())
    return 1 if report.violations or not report.jobs else 0


def _tell(words: str) -> None:
    print(words, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
