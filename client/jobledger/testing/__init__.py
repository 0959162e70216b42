"""Helpers for the tests of programs that use Jobledger.

`run_handler` runs a worker's handler without a server. `local_server` runs a real server on SQLite;
for pytest it is the fixture `jobledger_server`. `World` runs servers and workers in simulated time;
for pytest it is the marker `jobledger_world` with the fixture `world`.
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
    from jobledger.testing.world.backup import Backup
    from jobledger.testing.world.problems import Broken
    from jobledger.testing.world.processes import Process, Server, WorkerProcess
    from jobledger.testing.world.refusals import NotSimulated
    from jobledger.testing.world.world import World
    from jobledger.worker.session.reports import Report

__all__ = [
    "Backup",
    "Broken",
    "HandlerRun",
    "LocalServer",
    "NotSimulated",
    "Process",
    "Report",
    "RunOptions",
    "Server",
    "ServerFailed",
    "WorkerProcess",
    "World",
    "local_server",
    "run_handler",
    "run_handler_async",
]

# Imported when first used: pytest loads this package for its plugin in each of its runs.
_MODULES = {
    "Backup": "testing.world.backup",
    "Broken": "testing.world.problems",
    "HandlerRun": "testing.handler_run",
    "LocalServer": "testing.server",
    "NotSimulated": "testing.world.refusals",
    "Process": "testing.world.processes",
    "Report": "worker.session.reports",
    "RunOptions": "testing.handler_run",
    "Server": "testing.world.processes",
    "ServerFailed": "testing.server",
    "WorkerProcess": "testing.world.processes",
    "World": "testing.world.world",
    "local_server": "testing.server",
    "run_handler": "testing.handler_run",
    "run_handler_async": "testing.handler_run",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"jobledger.{_MODULES[name]}"), name)
