"""A world: real servers, workers and clients in simulated time, with what breaks in it."""

import asyncio
import gc
import logging
import os
import re
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from jobledger import BlockingJob, ClaimedJob, Job, RetryPolicy, Worker
from jobledger_server.tuning import Tuning
from jobledger_world.problems import Broken
from jobledger_world.refusals import NotSimulated
from jobledger_world.world import World

POOL = ProcessPoolExecutor(1)  # starts a process when it is used
AGAIN = RetryPolicy(max_attempts=20)
IDLE = Tuning(
    tail_idle_seconds=60,
    caller_seconds=60,
    look_seconds=60,
    poller_seconds=600,
    purge_seconds=3600,
    sweep_seconds=3600,
)
"""For simulated days: a server without work looks for some once a minute."""


def frames(made: Counter[str]):
    """Make workers whose blocking handler takes 50 s."""

    def make(client):
        worker = Worker(client, concurrency=3, lease=30)

        @worker.handler
        def render(job: BlockingJob):
            for step in range(5):
                job.progress(step * 20)
                time.sleep(10)
            made[job.id] += 1

        return worker

    return make


async def three_jobs(world: World) -> list[tuple[str, int]]:
    """Three jobs with blocking handlers, a cancellation, and a crash of their worker."""
    made = Counter()
    (process,) = world.worker(frames(made))
    client = world.client("ada")
    jobs = [await client.create_job("render", retry_policy=AGAIN) for _ in range(3)]
    await asyncio.sleep(15)
    await client.cancel_job(jobs[1].id)
    await asyncio.sleep(5)
    process.kill()
    await asyncio.sleep(2)
    process.boot()
    done = [await world.finished(job) for job in jobs]
    assert made == {jobs[0].id: 1, jobs[2].id: 1}
    return [(job.status.name, job.attempt) for job in done]


OUTCOME = [("COMPLETED", 2), ("FAILED", 1), ("COMPLETED", 2)]


def test_blocking_handlers_run_in_simulated_time_through_a_crash_and_a_cancellation():
    world = World(5, store="sqlite")
    assert world.run(three_jobs) == OUTCOME
    assert 90 < world.loop.time() < 150
    assert world.loop.steps < 20_000


def test_a_seed_repeats_a_run_and_another_one_is_another_run():
    hashes = []
    for seed in (1, 1, 2):
        world = World(seed)
        assert world.run(three_jobs) == OUTCOME
        hashes.append(world.loop.hash)
    assert hashes[0] == hashes[1] != hashes[2]


async def jobs_in_chaos(world: World) -> list[str]:
    made = Counter()
    world.worker(frames(made), processes=2)
    client = world.client("ada")
    jobs = [await client.create_job("render", retry_policy=AGAIN) for _ in range(3)]
    async with world.chaos(minutes=10):
        return [(await world.finished(job)).status.name for job in jobs]


def test_jobs_are_done_in_spite_of_chaos():
    happened = Counter()
    for seed in (2, 3):  # together they break all that is named below
        world = World(seed, servers=2)
        assert world.run(jobs_in_chaos) == ["COMPLETED"] * 3
        happened.update(line.split(": ")[1].split()[0] for line in world.history)
    assert min(happened[kind] for kind in ("kill", "freeze", "stop", "cut", "database")) > 0


def test_a_kind_of_fault_that_is_left_out_does_not_change_the_others():
    async def clock_only(world: World, **kinds: bool) -> None:
        async with world.chaos(minutes=10, workers=False, network=False, database=False, **kinds):
            await asyncio.sleep(600)

    def jumps(**kinds: bool) -> list[str]:
        world = World(3)
        world.run(lambda world: clock_only(world, **kinds))
        return [line for line in world.history if "clock" in line]

    assert jumps(servers=False) == jumps(servers=True) != []


def test_an_idle_day_of_a_server_takes_few_steps():
    async def day(world: World) -> None:
        await asyncio.sleep(timedelta(days=1).total_seconds())

    world = World(1, tuning=IDLE)
    world.run(day)
    assert world.loop.steps < 30_000


def test_what_a_program_has_frozen_stays_frozen_after_a_run():
    async def main(world: World) -> None: ...

    gc.freeze()
    frozen = gc.get_freeze_count()
    World(1).run(main)
    assert gc.get_freeze_count() >= frozen


def test_a_job_that_is_scheduled_for_later_is_done_then():
    async def later(world: World) -> tuple[Job, datetime]:
        made = Counter()
        world.worker(frames(made))
        client = world.client("ada")
        at = datetime.fromtimestamp(time.time() + 600, UTC)
        job = await client.create_job("render", schedule_time=at)
        return await world.finished(job), at

    job, at = World(1, tuning=IDLE).run(later)
    assert job.start_time is not None
    assert timedelta(0) <= job.start_time - at < timedelta(minutes=2)


def test_a_job_that_does_not_finish_is_said_to_take_too_long():
    async def nobody_works(world: World) -> None:
        job = await world.client("ada").create_job("render")
        await world.finished(job, within=timedelta(minutes=5))

    with pytest.raises(TimeoutError, match=r"is not terminal after 0:05:00"):
        World(1).run(nobody_works)


# What fails a run.


def test_an_error_in_a_servers_log_fails_the_run():
    async def logged(world: World) -> None:
        (server,) = world.servers.values()
        await server.node.start(log())

    async def log() -> None:
        logging.getLogger("jobledger.tail").error("feed_hole_found")

    with pytest.raises(Broken, match=r"server-1\.1 has logged feed_hole_found"):
        World(1).run(logged)


def test_an_exception_that_nobody_retrieved_fails_the_run():
    async def fails() -> None:
        raise ValueError("unseen")

    async def left(world: World) -> None:
        await asyncio.wait({asyncio.create_task(fails())})

    with pytest.raises(Broken, match=r"(?s)never retrieved.*unseen"):
        World(1).run(left)


def test_a_task_that_a_server_leaves_behind_fails_the_run():
    async def leaves(world: World) -> None:
        (server,) = world.servers.values()
        server.node.start(asyncio.sleep(1e6), name="left behind")

    with pytest.raises(Broken, match=r"server-1\.1 has left tasks: left behind"):
        World(1).run(leaves)


def test_a_worker_that_fails_to_start_fails_the_run():
    async def starts(world: World) -> None:
        world.worker(Worker)
        await asyncio.sleep(1)

    with pytest.raises(Broken, match=r"(?s)worker-1\.1 has failed.*the worker has none"):
        World(1).run(starts)


# What the world has not.


NOT_SIMULATED = [
    (lambda: socket.create_connection(("127.0.0.1", 9)), "has no sockets"),
    (lambda: subprocess.run(["true"], check=True), "has no subprocesses"),
    (lambda: os.system("true"), "has no subprocesses"),
    (lambda: threading.Thread(target=print).start(), "has no threads"),
    (lambda: asyncio.get_running_loop().add_reader(0, print), "has no sockets"),
    (lambda: asyncio.get_running_loop().add_signal_handler(15, print), "has no signals"),
    (lambda: asyncio.get_running_loop().run_in_executor(POOL, print), "has no subprocesses"),
    (lambda: time.sleep(1), "await asyncio.sleep instead"),
]


def test_what_is_not_simulated_is_refused_and_fails_the_run():
    def make(client):
        worker = Worker(client)

        @worker.handler
        async def render(job: ClaimedJob):
            for call, said in NOT_SIMULATED:
                with pytest.raises(NotSimulated, match=re.escape(said)):
                    call()

        return worker

    async def refused(world: World) -> None:
        world.worker(make)
        await world.finished(await world.client("ada").create_job("render"))

    with pytest.raises(Broken) as caught:
        World(1).run(refused)
    noted = re.findall("NotSimulated: (.*)", str(caught.value))
    for (_, said), words in zip(NOT_SIMULATED, noted, strict=True):
        assert said in words


def render_elsewhere(job: BlockingJob) -> None: ...


def test_a_handler_in_a_process_is_refused_whatever_the_test_says_of_its_job():
    def make(client):
        worker = Worker(client)
        worker.handler("render", executor="process")(render_elsewhere)
        return worker

    async def runs(world: World) -> None:
        world.worker(make)
        job = await world.client("ada").create_job("render")
        await world.finished(job, within=timedelta(seconds=30))

    with pytest.raises(TimeoutError) as caught:
        World(1).run(runs)
    assert "multiprocessing.Process.start: a process" in caught.value.__notes__[0]


def test_a_thread_of_asyncio_sleeps_in_simulated_time():
    async def sleeps(world: World) -> float:
        await asyncio.to_thread(time.sleep, 3600)
        return world.loop.time()

    assert World(1, tuning=IDLE).run(sleeps) > 3600
