"""Each validator detects the server that breaks its promise, and accepts a correct one."""

import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobledger_server.app import App
from jobledger_server.database.url import parse_url
from jobledger_server.sql.database import Database, open_database
from tests.robustness import checker, mutations, queue_mutants
from tests.robustness.checker.inspector import inspecting
from tests.robustness.checker.load import Load, Size
from tests.robustness.checker.validate import judge
from tests.robustness.checker.violation import Promise, Violation
from tests.robustness.front import Mutation, standing_before

pytestmark = pytest.mark.slow  # whole runs of the checker

SMALL = Size(
    rate=250,
    writers=3,
    workers=3,
    stream_workers=3,
    library_workers=0,
    job_watchers=4,
    abandoned=0.0,
    released=0.1,
    deaths=0.0,
    waits=0.0,
)

OFTEN_RETRIED = replace(SMALL, patience=3.0, retried=0.5, released=0.05)
"""For servers that are wrong about attempts that follow others."""

IMPATIENT = replace(SMALL, patience=3.0)
"""For servers that never send some changes."""

WAITING = replace(IMPATIENT, rate=100, cancelled=0.2, waits=0.3, brief=0, workers=0)
"""For workers that would hear of a cancellation: all jobs may be cancelled, all go to streams, and
few wait: a job that waits is cancelled at once."""

STRIKE_SECONDS = 60.0

sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

NextServer = Callable[[], Awaitable[App]]


@pytest.fixture
def next_server(
    start: Callable[..., Awaitable[App]], sqlite_template: Path, tmp_path: Path
) -> NextServer:
    """Starts a server with a database of its own: all that a load finds there is judged by it."""
    numbers = itertools.count()

    async def next_server() -> App:
        file = shutil.copy(sqlite_template, tmp_path / f"{next(numbers)}.db")
        return await start(database=f"sqlite:///{file}")

    return next_server


async def judged(
    app: App, mutation: Mutation, size: Size = IMPATIENT, *, seed: int = 1
) -> dict[Promise, list[Violation]]:
    """Run a small load through the mutation until it has struck; return the judgement."""
    async with standing_before(app.address, mutation) as target:
        load = Load([target], seed=seed, size=size)
        async with load.running():
            async with asyncio.timeout(STRIKE_SECONDS):
                while not mutation.struck:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
        return judge(load.history)


KEYED = replace(IMPATIENT, waits=0.0)
"""For servers that are wrong about queues and keys."""


SETTINGS = 12
"""Changes of limits and pauses in such a run, so that each kind of them is among them."""


async def inspected(app: App, database: str, *, seed: int) -> dict[Promise, list[Violation]]:
    """Run a load on the server while its database is looked into; return the judgement."""
    honest = Honest()
    async with standing_before(app.address, honest) as target:
        load = Load([target], seed=seed, size=KEYED)
        opened = open_database(parse_url(database), unlimited=True)
        async with inspecting(opened, load.history), load.running():
            async with asyncio.timeout(STRIKE_SECONDS):
                while not honest.struck or load.history.settings < SETTINGS:
                    await asyncio.sleep(0.05)
    assert any(start.key for start in load.history.starts)
    return judge(load.history)


class Honest(Mutation):
    """Counts strikes without altering anything."""

    times = 200

    async def unary(self, rpc: str, request: Any, forward: Any) -> Any:
        self.strikes += 1
        return await forward(request)


@pytest.mark.promise(number=42)
@sqlite
async def test_a_correct_server_breaks_no_promise(app: App) -> None:
    found = await judged(app, Honest(), SMALL)
    assert not any(found.values()), found


@pytest.mark.promise(number=42)
@sqlite
@pytest.mark.parametrize(
    ("mutation", "promise"),
    [
        (mutations.DropsOne, "reliable"),
        (mutations.RepeatsOne, "unique"),
        (mutations.SwapsTwoJobs, "ordered"),
        (mutations.ForgetsOneOnResume, "resumable"),
        (mutations.ChangesAnEndedJob, "terminal"),
        (mutations.CreatesTwice, "atomic"),
        (mutations.ForgetsAReport, "kept"),
        (mutations.LosesAnUpdate, "kept"),
        (mutations.HidesWhatWasDeleted, "resumable"),
        (mutations.ForgetsDeletedAssets, "removed"),
        (mutations.AnswersWithoutDeletedAssets, "removed"),
        (mutations.LosesAnAttempt, "attempts"),
        (mutations.MistakesAnOutcome, "attempts"),
        (mutations.SaysHeld, "attempts"),
        (mutations.ForgetsCancellations, "cancelled"),
        (mutations.SaysCancelled, "cancelled"),
        (mutations.SendsParametersWithAReport, "views"),
        (mutations.ForgetsParameters, "views"),
        (mutations.RepeatsParameters, "views"),
        (mutations.ForgetsTheResult, "views"),
    ],
)
async def test_a_server_that_breaks_a_promise_is_detected(
    next_server: NextServer, mutation: Callable[[], Mutation], promise: Promise
) -> None:
    # A strike can fall where it does no harm, such as on a job that is deleted just then.
    for seed in range(4):
        found = await judged(await next_server(), mutation(), seed=seed)
        if found[promise]:
            return
    raise AssertionError(f"not caught: {found}")


@pytest.mark.promise(number=42)
@sqlite
@pytest.mark.parametrize(
    ("mutation", "promise"),
    [
        (mutations.IgnoresSchedules, "scheduled"),
        (mutations.IgnoresPolicies, "retried"),
        (mutations.ForgetsCheckpoints, "checkpoints"),
        (mutations.GivesAnOlderCheckpoint, "checkpoints"),
        (mutations.ForgetsRetries, "attempts"),
        (mutations.RepeatsAJobTwice, "repeated"),
    ],
)
async def test_a_server_that_is_wrong_about_retries_is_detected(
    next_server: NextServer, mutation: Callable[[], Mutation], promise: Promise
) -> None:
    for seed in range(4):
        found = await judged(await next_server(), mutation(), OFTEN_RETRIED, seed=seed)
        if found[promise]:
            return
    raise AssertionError(f"not caught: {found}")


@pytest.mark.promise(number=42)
@sqlite
async def test_a_cancellation_that_does_not_reach_its_worker_is_detected(
    next_server: NextServer,
) -> None:
    for seed in range(4):
        found = await judged(
            await next_server(), mutations.HidesCancellations(), WAITING, seed=seed
        )
        if found["cancelled"]:
            return
    raise AssertionError(f"not caught: {found}")


@pytest.mark.promise(number=42)
@sqlite
async def test_a_correct_server_that_retries_often_breaks_no_promise(app: App) -> None:
    found = await judged(app, Honest(), OFTEN_RETRIED)
    assert not any(found.values()), found


@pytest.mark.promise(number=42)
async def test_a_correct_server_counts_and_limits_right(app: App, database_url: str) -> None:
    found = await inspected(app, database_url, seed=1)
    assert not any(found.values()), found


@pytest.mark.usefixtures("damaged")
@pytest.mark.promise(number=42)
@sqlite
@pytest.mark.parametrize(
    ("breaks", "often", "promise"),
    [
        (queue_mutants.counts_too_little, {}, "counted"),
        (queue_mutants.ignores_limits, {"operators.CHANGES": ["limit"]}, "limited"),
        (queue_mutants.ignores_pauses_of_keys, {"operators.CHANGES": ["key"]}, "limited"),
        (queue_mutants.ignores_pauses_of_types, {"operators.CHANGES": ["type"]}, "limited"),
        (queue_mutants.forgets_blocked_jobs, {"operators.CHANGES": ["limit"]}, "unblocked"),
        (queue_mutants.counts_turns_twice_over, {}, "fair"),
        (queue_mutants.ignores_unique_keys, {"writers.UNIQUE": 1.0}, "single"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_a_server_that_is_wrong_about_who_goes_next_is_detected(
    app: App,
    database: Database,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    breaks: Callable[[pytest.MonkeyPatch, Database], Awaitable[None]],
    often: Mapping[str, Any],
    promise: Promise,
) -> None:
    for name, value in often.items():  # so that what it is wrong about comes often enough
        monkeypatch.setattr(f"{checker.__name__}.{name}", value)
    await breaks(monkeypatch, database)
    for seed in range(4):
        found = await inspected(app, database_url, seed=seed)
        if found[promise]:
            return
    raise AssertionError("not caught")
