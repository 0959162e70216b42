"""Helpers for the tests of programs that use Jobledger.

`run_handler` runs a worker's handler without a server. `local_server` runs a real server on SQLite;
for pytest it is the fixture `jobledger_server`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobledger.testing.handler_run import (
        HandlerRun,
        RunOptions,
        run_handler,
        run_handler_async,
    )
    from jobledger.testing.server import LocalServer, ServerFailed, local_server
    from jobledger.worker.session.reports import Report

__all__ = [
    "HandlerRun",
    "LocalServer",
    "Report",
    "RunOptions",
    "ServerFailed",
    "local_server",
    "run_handler",
    "run_handler_async",
]

# Imported when first used: pytest loads this package for its plugin in each of its runs.
_MODULES = {
    "HandlerRun": "testing.handler_run",
    "LocalServer": "testing.server",
    "Report": "worker.session.reports",
    "RunOptions": "testing.handler_run",
    "ServerFailed": "testing.server",
    "local_server": "testing.server",
    "run_handler": "testing.handler_run",
    "run_handler_async": "testing.handler_run",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"jobledger.{_MODULES[name]}"), name)
