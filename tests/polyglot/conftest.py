"""Takes each language's program through the same steps, and says which languages those were.

Runs only with `-m polyglot` (`make test-polyglot`): it needs a toolchain for each language.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.polyglot.builds import Builds
from tests.polyglot.ledger import Ledger
from tests.polyglot.programs import PROGRAMS, BuildFailed, Jobs, Program
from tests.support.server_process import ServerProcess

HERE = Path(__file__).parent
MISSING = {p.name: p.missing() for p in PROGRAMS if p.missing()}
RUNNABLE = [p for p in PROGRAMS if p.name not in MISSING]
BUILDS = pytest.StashKey[Builds]()
SECONDS = pytest.StashKey[dict[str, float]]()
# Later than the 15 s after which a proxy ends a stream that its settings do not name.
HEARTBEAT = ["--heartbeat", "16"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "program" in metafunc.fixturenames:
        names = [program.name for program in RUNNABLE]
        metafunc.parametrize("program", RUNNABLE, ids=names, scope="session")


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.is_relative_to(HERE):
        item.add_marker(pytest.mark.polyglot)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put a test behind those that can begin earlier: what it needs has to be built.

    Of those that need the last one, first the ones with all languages: they take longest.
    """

    def turn(item: pytest.Item) -> tuple[int, int]:
        needed = programs_of(item)
        return max(map(RUNNABLE.index, needed), default=-1), -len(needed)

    items.sort(key=turn)


def pytest_collection_finish(session: pytest.Session) -> None:
    ours = [item for item in session.items if item.path.is_relative_to(HERE)]
    if session.config.option.collectonly or not ours:
        return
    if MISSING and os.environ.get("CI") == "true":
        raise pytest.UsageError(f"in CI no language may be missing: {_missing()}")
    chosen = [program for item in ours for program in programs_of(item)]
    session.config.stash[BUILDS] = Builds(
        [p for p in RUNNABLE if p in chosen],
        session.config.cache.mkdir("polyglot-builds"),
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for what the test needs before its time begins to count."""
    with suppress(BuildFailed):
        for program in programs_of(item):
            item.config.stash[BUILDS].wait(program)
    return (yield)


@pytest.fixture(autouse=True)
def _built(request: pytest.FixtureRequest) -> None:
    """Fail where what the test needs cannot be built, and end the run."""
    try:
        for program in programs_of(request.node):
            request.config.stash[BUILDS].wait(program)
    except BuildFailed as failure:
        request.session.shouldfail = "a program cannot be built"
        pytest.fail(str(failure), pytrace=False)


def programs_of(item: pytest.Item) -> list[Program]:
    """Return those that a test runs."""
    if not isinstance(item, pytest.Function) or not item.path.is_relative_to(HERE):
        return []
    if "programs" in item.fixturenames:
        return RUNNABLE
    if "operations" in item.fixturenames:  # built from much that Go has compiled by then
        return [program for program in RUNNABLE if program.name == "go"]
    if "program" not in item.fixturenames:
        return []
    program = item.callspec.params["program"]
    assert isinstance(program, Program)
    return [program]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Say what was built: with several processes, to the one that reports."""
    config = session.config
    if BUILDS not in config.stash:
        return
    builds = config.stash[BUILDS]
    if not session.shouldfail and not session.shouldstop:
        builds.join()  # another process waits for it
    if "PYTEST_XDIST_WORKER" in os.environ:
        config.workeroutput["built"] = builds.seconds
    else:
        config.stash.setdefault(SECONDS, {}).update(builds.seconds)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    built = getattr(node, "workeroutput", {}).get("built", {})
    node.config.stash.setdefault(SECONDS, {}).update(built)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if SECONDS not in config.stash:
        return
    built = config.stash[SECONDS]
    terminalreporter.section("languages")
    for name, seconds in built.items():
        terminalreporter.write_line(f"ran {name} (built in {seconds:.0f} s)")
    if MISSING:
        terminalreporter.write_line(f"could not run: {_missing()}")


def _missing() -> str:
    return "; ".join(f"{name} (not here: {', '.join(what)})" for name, what in MISSING.items())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that lives through all tests; those that kill one have their own."""
    with ServerProcess(tmp_path_factory.mktemp("server"), arguments=HEARTBEAT) as server:
        yield server


@pytest.fixture(scope="session")
def ledger(server: ServerProcess) -> Iterator[Ledger]:
    with Ledger(server.target) as ledger:
        yield ledger


@pytest.fixture
def programs() -> list[Program]:
    """Return all languages at once."""
    return RUNNABLE


@pytest.fixture
def jobs(program: Program, server: ServerProcess) -> Jobs:
    return Jobs(program, server.target)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path) as server:
        yield server


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """A type of jobs, and a user, of this test's own: nobody else claims or lists them."""
    return (
        request.node.name.translate(str.maketrans("[]", "-."))
        .removeprefix("test_")[-50:]
        .strip("._-")
    )
