"""The pytest plugin: the fixture `jobledger_server`, and tests in simulated worlds.

pytest loads it wherever jobledger is installed, so it imports nothing until one is used.
"""

import functools
import importlib.util
import inspect
import shlex
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from jobledger.testing.server import LocalServer

MARKER = "jobledger_world"
WORLD = "jobledger_world"
"""The fixture; it has the name of the marker."""
SEEDS = 100

Scope: TypeAlias = Literal["session", "package", "module", "class", "function"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's setting and options."""
    parser.addini(
        "jobledger_server_scope",
        "The scope of the fixture jobledger_server: function, class, module, package or session.",
        default="function",
    )
    group = parser.getgroup("jobledger")
    group.addoption(
        "--jobledger-seed",
        type=int,
        help="Run the tests in simulated worlds with this seed only.",
    )
    group.addoption(
        "--jobledger-seeds",
        type=int,
        help="Run the tests in simulated worlds with so many seeds.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(seeds={SEEDS}, **options): run an async test in simulated time, once for each "
        "seed; the options are those of jobledger.testing.World",
    )


@pytest.hookimpl(wrapper=True, trylast=True)  # before plugins that run async tests themselves
def pytest_pycollect_makeitem() -> "Generator[None, Any, Any]":
    """Make plain functions of the async tests that have the marker."""
    found = yield
    for item in found if isinstance(found, list) else [found]:
        if isinstance(item, pytest.Function):
            marker = item.get_closest_marker(MARKER)
            if marker is not None:
                item.obj = _in_worlds(item, marker)
    return found


def _in_worlds(item: pytest.Function, marker: pytest.Mark) -> "Callable[..., None]":
    test = item.obj
    if not inspect.iscoroutinefunction(test):
        raise pytest.Collector.CollectError(f"{item.name}: {MARKER} is for async functions")
    if WORLD not in inspect.signature(test).parameters:
        raise pytest.Collector.CollectError(f"{item.name}: does not take the fixture `{WORLD}`")

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        __tracebackhide__ = True
        if importlib.util.find_spec("jobledger_world") is None:
            pytest.fail("the simulated world is not installed: pip install 'jobledger[testing]'")
        from jobledger_world.seeds import run_seeds  # noqa: PLC0415

        options = {"seeds": SEEDS, **marker.kwargs}
        seeds, count = options.pop("seeds"), item.config.getoption("jobledger_seeds")
        only = item.config.getoption("jobledger_seed")
        # Each run of a test has an instance of its class, if it has one.
        owner = item.instance
        method = test if owner is None else getattr(owner, item.originalname)
        run_seeds(
            lambda world: method(**fixtures | {WORLD: world}),
            range(1, (count or seeds) + 1) if only is None else [only],
            command=f"pytest {shlex.quote(item.nodeid)} --jobledger-seed ",
            loud=only is not None,
            **options,
        )

    return run


@pytest.fixture(name=WORLD)
def _world(request: pytest.FixtureRequest) -> None:
    """Stand for the simulated world, of which a test with the marker gets one for each seed.

    See `jobledger.testing.World`.
    """
    if request.node.get_closest_marker(MARKER) is None:
        pytest.fail(f"the fixture {WORLD} is for async tests with @pytest.mark.{MARKER}")


def _scope(fixture_name: str, config: pytest.Config) -> Scope:  # noqa: ARG001  # pytest's names
    scope: Scope = config.getini("jobledger_server_scope")
    return scope


@pytest.fixture(scope=_scope)
def jobledger_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[LocalServer]":
    """Run a real server, without jobs, on SQLite in a temporary folder.

    `jobledger_server.target` is its address: `Client(jobledger_server.target, user_id="ada")`.
    """
    from jobledger.testing.server import local_server  # noqa: PLC0415

    with local_server(tmp_path_factory.mktemp("jobledger")) as server:
        yield server
