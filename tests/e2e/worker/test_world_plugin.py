"""Tests in simulated worlds, from outside: a project of its own."""

from pathlib import Path

import pytest

from tests.support.pytest_run import run_pytest

TESTS = """
import asyncio

import pytest

STARTED = []


@pytest.mark.jobledger_world(seeds=3, servers=2)
async def test_a_function(jobledger_world, tmp_path):
    STARTED.append(jobledger_world.seed)
    await asyncio.sleep(60)
    assert jobledger_world.loop.time() > 60
    assert len(jobledger_world.servers) == 2
    assert tmp_path.is_dir()


def test_each_seed_has_run():
    assert len(STARTED) == SEEDS


class TestOrders:
    @pytest.fixture(autouse=True)
    def prepare(self):
        self.prepared = True

    @pytest.mark.jobledger_world(seeds=1)
    @pytest.mark.parametrize("number", [1, 2])
    async def test_a_method(self, jobledger_world, number):
        assert self.prepared
        assert number in (1, 2)
"""

OTHER = """
import pytest


@pytest.mark.asyncio
async def test_of_another_plugin():
    pass
"""

ASYNCIO = (
    *("-p", "asyncio"),
    *("-o", "asyncio_mode=auto"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)


@pytest.mark.parametrize(
    ("options", "seeds", "other"),
    [(("--jobledger-seeds", "4"), 4, ""), (ASYNCIO, 3, OTHER)],
    ids=["alone", "pytest-asyncio"],
)
def test_async_tests_run_in_worlds_for_each_seed_with_and_without_pytest_asyncio(
    tmp_path: Path, options: tuple[str, ...], seeds: int, other: str
) -> None:
    (tmp_path / "test_orders.py").write_text(TESTS.replace("SEEDS", str(seeds)))
    (tmp_path / "test_others.py").write_text(other)
    run = run_pytest(tmp_path, *options)
    assert run.returncode == 0, run.stdout + run.stderr
    assert ("5 passed" if other else "4 passed") in run.stdout


WRONG = """
import pytest


def test_without_the_marker(jobledger_world):
    pass


@pytest.mark.jobledger_world
async def test_that_fails_by_a_call(jobledger_world):
    pytest.fail("this")


@pytest.mark.jobledger_world
async def test_that_is_skipped(jobledger_world):
    pytest.skip("that")


@pytest.mark.jobledger_world(colour="red")
async def test_with_an_option_that_is_none(jobledger_world):
    pass
"""


def test_what_is_wrong_with_a_test_is_said(tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text(WRONG)
    run = run_pytest(tmp_path)
    assert (
        "the fixture jobledger_world is for async tests with @pytest.mark.jobledger_world"
        in run.stdout
    )
    assert "unexpected keyword argument 'colour'" in run.stdout
    assert "this\nseed 1, hash" in run.stdout.replace("E       ", "").replace("E   ", "")
    assert "2 failed, 1 skipped, 1 error" in run.stdout


def test_a_marked_test_that_cannot_run_in_a_world_is_refused_when_it_is_collected(
    tmp_path: Path,
) -> None:
    marked = "import pytest\n\n@pytest.mark.jobledger_world\n"
    (tmp_path / "test_plain.py").write_text(f"{marked}def test_it(jobledger_world): pass\n")
    (tmp_path / "test_outside.py").write_text(f"{marked}async def test_it(): pass\n")
    run = run_pytest(tmp_path)
    assert "is for async functions" in run.stdout
    assert "does not take the fixture `jobledger_world`" in run.stdout
    assert run.returncode == pytest.ExitCode.INTERRUPTED


ENDLESS = """
import signal

import pytest

from jobledger import RetryPolicy, Worker


def compute_without_end():
    signal.setitimer(signal.ITIMER_REAL, 0.01)  # the time is over soon
    while True:
        pass


def make_worker(client):
    worker = Worker(client, lease=30)

    @worker.handler
    async def compute(job):
        compute_without_end()

    @worker.handler
    def compute_in_thread(job):
        compute_without_end()

    @worker.handler
    def interrupt(job):
        signal.raise_signal(signal.SIGINT)

    return worker


@pytest.mark.jobledger_world
@pytest.mark.parametrize("job_type", {})
async def test_it(jobledger_world, job_type):
    jobledger_world.worker(make_worker)
    policy = RetryPolicy(max_attempts=50)
    client = jobledger_world.client("ada")
    await jobledger_world.finished(await client.create_job(job_type, retry_policy=policy))
"""


def test_the_timeout_of_pytest_ends_a_test_whose_handler_computes_without_end(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_it.py").write_text(ENDLESS.format(["compute", "compute_in_thread"]))
    run = run_pytest(tmp_path, "-o", "timeout=100", "-o", "timeout_method=signal")
    assert run.stdout.count("E       Failed: Timeout (>100.0s) from pytest-timeout.") == 2, (
        run.stdout
    )
    # Where CI is set, pytest repeats each message in its summary.
    told = run.stdout.splitlines()
    assert sum(line.startswith("E       repeat: pytest") for line in told) == 2
    assert sum(line.startswith("E") and ": boot worker-1.1" in line for line in told) == 2
    assert "2 failed" in run.stdout


def test_an_interrupt_in_a_plain_handler_ends_the_session(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(ENDLESS.format(["interrupt"]))
    run = run_pytest(tmp_path)
    assert "KeyboardInterrupt" in run.stdout
    assert run.returncode == pytest.ExitCode.INTERRUPTED
