"""The command line: one subcommand for each scenario of `run`, and the other commands."""

import argparse
import pkgutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

from benchmarks import scenarios
from benchmarks.processes import BenchmarkError
from benchmarks.run import Run
from benchmarks.stats import Report
from benchmarks.targets import DATABASES

COMMANDS = {
    "compare": "benchmarks.compare",
    "profile": "benchmarks.profile",
    "peers": "benchmarks.peers.table",
}
"""The modules of the commands: each has `add_arguments` and `run`."""

SCENARIOS = tuple(module.name for module in pkgutil.iter_modules(scenarios.__path__))

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    parsed = parser().parse_args(arguments)
    # So that servers and databases are stopped by whatever ends this program but SIGKILL.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    command: Command = parsed.command
    try:
        return command(parsed)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    whole = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures Jobledger on this machine."
    )
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    run = commands.add_parser("run", help="measure one scenario")
    names = run.add_subparsers(metavar="SCENARIO", required=True)
    for name in SCENARIOS:
        module = import_module(f"benchmarks.scenarios.{name}")
        scenario = names.add_parser(
            name, help=_first_line(module.__doc__), description=_first_line(module.__doc__)
        )
        _add_common_arguments(scenario)
        if add_arguments := getattr(module, "add_arguments", None):
            add_arguments(scenario)
        scenario.set_defaults(command=_run, name=name, measure=module.measure)
    for name, path in COMMANDS.items():
        module = import_module(path)
        command = commands.add_parser(
            name, help=_first_line(module.__doc__), description=_first_line(module.__doc__)
        )
        module.add_arguments(command)
        command.set_defaults(command=module.run)
    return whole


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database", nargs="+", choices=DATABASES, default=DATABASES, help="default: both"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: 7")
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="of each slice of load; default: 1"
    )
    parser.add_argument(
        "--serve",
        action="append",
        default=[],
        metavar="ARGUMENT",
        help="one more argument of `jobledger-server serve`, as in --serve=--processes=2",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there too")


def _run(arguments: argparse.Namespace) -> int:
    report = Report()
    with tempfile.TemporaryDirectory(prefix="jobledger-bench-") as folder, ExitStack() as stack:
        measure: Callable[[Run], None] = arguments.measure
        measure(Run(arguments, Path(folder), stack, report))
    report.publish(arguments.json)
    return 0


def _first_line(doc: str | None) -> str:
    assert doc is not None
    return doc.splitlines()[0]
