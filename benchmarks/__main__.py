"""The benchmarks' one program: `python -m benchmarks run|compare|peers`."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import compare
from benchmarks.peers import table
from benchmarks.processes import BenchmarkError
from benchmarks.scenarios import Run, claims, growth, lifecycle, output, unary, watch
from benchmarks.targets import DATABASES

COMMANDS = {"compare": compare, "peers": table}
"""The modules of the commands: each has `add_arguments` and `run`."""

SCENARIOS = {
    "unary": unary.SCENARIO,
    "lifecycle": lifecycle.SCENARIO,
    "watch": watch.SCENARIO,
    "growth": growth.SCENARIO,
    "claims": claims.SCENARIO,
    "output": output.SCENARIO,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    parsed = parser().parse_args(arguments)
    # So that servers and databases are stopped by whatever ends this program but SIGKILL.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    command: Callable[[argparse.Namespace], int] = parsed.command
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
    for name, scenario in SCENARIOS.items():
        command = _add_parser(names, name, scenario.measure.__doc__)
        _add_common_arguments(command)
        for option, (default, what) in scenario.options.items():
            command.add_argument(
                f"--{option}",
                type=type(default),
                default=default,
                metavar="N",
                help=f"{what}; default: {default:,}",
            )
        command.set_defaults(command=_run, name=name)
    for name, module in COMMANDS.items():
        command = _add_parser(commands, name, module.__doc__)
        module.add_arguments(command)
        command.set_defaults(command=module.run)
    return whole


def _add_parser(
    parsers: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, doc: str | None
) -> argparse.ArgumentParser:
    assert doc is not None
    line = doc.splitlines()[0]
    return parsers.add_parser(name, help=line, description=line)


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
    with tempfile.TemporaryDirectory(prefix="jobledger-bench-") as folder, ExitStack() as stack:
        run = Run(arguments, Path(folder), stack)
        SCENARIOS[arguments.name].measure(run)
    if run.load_cores:
        run.report.note(
            f"The load used at most {run.load_cores:.2f} cores; as many as there are processes "
            "that make it would be the limit itself."
        )
    run.report.publish(arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
