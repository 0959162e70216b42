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
    from jobledger.worker.session.reports import Report
    from jobledger_world.backup import Backup
    from jobledger_world.problems import Broken
    from jobledger_world.processes import Process, Server, WorkerProcess
    from jobledger_world.refusals import NotSimulated
    from jobledger_world.world import World

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
    "jobledger.testing.handler_run": [
        "HandlerRun",
        "RunOptions",
        "run_handler",
        "run_handler_async",
    ],
    "jobledger.testing.server": ["LocalServer", "ServerFailed", "local_server"],
    "jobledger_world.backup": ["Backup"],
    "jobledger_world.problems": ["Broken"],
    "jobledger_world.processes": ["Process", "Server", "WorkerProcess"],
    "jobledger_world.refusals": ["NotSimulated"],
    "jobledger_world.world": ["World"],
    "jobledger.worker.session.reports": ["Report"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
