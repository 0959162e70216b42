"""The pytest plugin: the fixture `jobledger_server`.

pytest loads it wherever jobledger is installed, so it imports nothing until the fixture is used.
"""

from typing import TYPE_CHECKING, Literal, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobledger.testing.server import LocalServer

Scope: TypeAlias = Literal["session", "package", "module", "class", "function"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's setting."""
    parser.addini(
        "jobledger_server_scope",
        "The scope of the fixture jobledger_server: function, class, module, package or session.",
        default="function",
    )


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
