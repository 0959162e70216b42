"""What pytest does for `scripts.mutants`.

While coverage measures, the lines that run are attributed to their test, and the file that
`MUTANTS_RECORD` names gets the seconds of each test. The tests that the file `MUTANTS_CHOSEN` names
run in its order, and no others; the file `MUTANTS_RUNNING` has the last one that began.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

RECORD = os.environ.get("MUTANTS_RECORD")
CHOSEN = os.environ.get("MUTANTS_CHOSEN")
RUNNING = os.environ.get("MUTANTS_RUNNING")
IMPORTS = ""
"""The context of lines that run before any test, or once for many."""

_seconds: dict[str, float] = {}
_failed: set[str] = set()
_context = IMPORTS


@contextlib.contextmanager
def _measured_for(context: str) -> Iterator[None]:
    """Attribute the lines that run in this block."""
    global _context  # noqa: PLW0603 - coverage does not say what it is at
    outer, _context = _context, context
    measured = coverage.Coverage.current()
    if measured:
        measured.switch_context(context)
    try:
        yield
    finally:
        _context = outer
        if measured:
            measured.switch_context(outer)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if RUNNING:
        Path(RUNNING).write_text(item.nodeid, "utf-8")
    with _measured_for(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
    with _measured_for(_context if fixturedef.scope == "function" else IMPORTS):
        return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration
    if report.failed or report.skipped:
        _failed.add(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if RECORD:
        items[:] = [item for item in items if not _needs_postgresql(item)]
    if CHOSEN:
        by_id = {item.nodeid: item for item in items}
        chosen = Path(CHOSEN).read_text("utf-8").splitlines()
        items[:] = [by_id[test] for test in chosen if test in by_id]


def _needs_postgresql(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return "postgresql" in values or any("postgres" in name for name in item.fixturenames)


def pytest_sessionfinish() -> None:
    if RECORD:
        passed = {name: taken for name, taken in _seconds.items() if name not in _failed}
        Path(RECORD).write_text(json.dumps({"passed": passed, "failed": sorted(_failed)}), "utf-8")
