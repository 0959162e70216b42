"""Which modules may import from the tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import ROOT


def imported(file: Path) -> Iterator[str]:
    """Return the modules that a file imports, and what it imports from them, in full."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nothing_imports_from_a_conftest() -> None:
    assert [
        (file.relative_to(ROOT).as_posix(), name)
        for file in (ROOT / "tests").rglob("*.py")
        for name in imported(file)
        if "conftest" in name.split(".")
    ] == []


@pytest.mark.parametrize("folder", ["benchmarks", "client", "server", "examples", "scripts"])
def test_nothing_else_imports_from_the_tests(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    assert [
        (file.relative_to(ROOT).as_posix(), name)
        for file in files
        for name in imported(file)
        if name.split(".")[0] == "tests"
    ] == []
