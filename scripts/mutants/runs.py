"""Runs the tests on a copy of the tree: once to see which test runs which line, then on mutants."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from coverage import Coverage, CoverageData

from scripts.mutants.mutations import Mutant

ROOT = Path(__file__).parents[2]

FEW = 3
"""If at most this many tests run a line, its result may be kept for other tests, as that of an
import is. Then the tests of its file, and of those that import it, are tried as well."""

FIRST = 10
"""This many tests are tried before the others."""

WIDER_SECONDS = 60.0
"""The quickest of these, for this long."""

# Most of a short run of pytest is the import of packages: here one process imports them once.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("pytest", "coverage", "msgspec", "uvloop", "aiosqlite", "asyncpg", "prometheus_client"),
        *("sqlalchemy.ext.asyncio", "alembic.command", "alembic.config", "cryptography.x509"),
        *("grpc.aio", "grpc_status.rpc_status", "grpc_health.v1.health", "grpc_reflection"),
        *("google.longrunning.operations_pb2", "click", "rich.console"),
    ]
)

LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "node_modules", "target", "dist")


class Copy:
    """A copy of the tree, which may be broken."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.root = folder / "tree"
        self.folder = folder
        self._seed = seed
        self._writes = 0
        shutil.copytree(ROOT, self.root, ignore=LEFT_OUT)

    def pytest(
        self,
        *arguments: str,
        measured: Path | None = None,
        limit: float | None = None,
        **variables: str,
    ) -> tuple[int | None, str]:
        """Run pytest on the copy; return its exit code, None if it took too long, and its output.

        Args:
            arguments: Arguments of pytest.
            measured: The file for the lines that run, if they are to be measured.
            limit: How many seconds it may take.
            variables: Variables of its environment.
        """
        output = self.folder / "output"
        variables["JOBLEDGER_TEST_SEED"] = str(self._seed)
        options = ["-q", "-p", "no:cacheprovider", f"--hypothesis-seed={self._seed}"]
        options += [
            "-p",
            "scripts.mutants.pytest_plugin",
            f"--basetemp={self.folder / 'temporary'}",
        ]
        process = _FORKS.Process(
            target=_pytest, args=(self.root, [*options, *arguments], variables, output, measured)
        )
        process.start()
        process.join(limit)
        code = process.exitcode
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)  # with the servers that its tests started
        process.join()
        return code, output.read_text("utf-8", errors="replace")

    def write(self, path: str, source: bytes) -> None:
        """Write a file, with a time of its own: by it Python knows whether bytecode is current."""
        self._writes += 1
        (self.root / path).write_bytes(source)
        os.utime(self.root / path, (self._writes, self._writes))


def _pytest(
    root: Path, arguments: list[str], variables: dict[str, str], output: Path, measured: Path | None
) -> None:
    """Be a process that runs pytest on the code below `root`."""
    os.setsid()
    os.chdir(root)
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    packages = [str(root / part) for part in ("client", "server", "world")]
    sys.path[:0] = [str(root), *packages]
    sys.pycache_prefix = str(root.parent / "bytecode")
    sys.dont_write_bytecode = False
    os.environ.update(variables)
    os.environ["PYTHONPATH"] = os.pathsep.join(packages)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if measured is None:
        sys.exit(pytest.main(arguments))
    coverage = Coverage(
        measured,
        config_file=False,
        source_pkgs=["jobledger", "jobledger_server"],
        concurrency=["thread", "greenlet"],
    )
    with coverage.collect():
        code = pytest.main(arguments)
    coverage.save()
    sys.exit(code)


@dataclass(frozen=True)
class Selection:
    """Which tests run which line, and how long each takes."""

    data: CoverageData
    root: Path
    seconds: dict[str, float]

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests that may notice a mutant: those that take least come first."""
        by_line = self.data.contexts_by_lineno(str(self.root / mutant.path))
        direct = {test for line in mutant.lines for test in by_line.get(line, ())}
        chosen = self._quickest(direct)
        if len(chosen) <= FEW:
            room = WIDER_SECONDS
            for test in self._quickest(self._of_file(mutant.path) - direct):
                room -= self.seconds[test]
                if room < 0:
                    break
                chosen.append(test)
        return chosen

    def _quickest(self, tests: Iterable[str]) -> list[str]:
        """Return those that passed, without what is not a test."""
        passed = self.seconds.keys() & tests
        return sorted(passed, key=lambda test: (self.seconds[test], test))

    def _of_file(self, path: str) -> set[str]:
        """Return the tests that run anything of a file, or of one that imports it."""
        module = path.removesuffix(".py").split("/", 1)[1].replace("/", ".")
        return {
            test
            for file in self.data.measured_files()
            if file == str(self.root / path)
            or f"from {module} import" in Path(file).read_text("utf-8")
            for tests in self.data.contexts_by_lineno(file).values()
            for test in tests
        }


def select(copy: Copy, tests: Sequence[str]) -> Selection:
    """Run the tests on the code as it is, and see which of them run which line."""
    record, measured = copy.folder / "record.json", copy.folder / "coverage"
    _, output = copy.pytest(*tests, measured=measured, MUTANTS_RECORD=str(record))
    if not record.exists():
        sys.exit(f"The tests do not run:\n{output}")
    recorded = json.loads(record.read_text("utf-8"))
    for test in recorded["failed"]:
        print(f"left out, as it fails or is skipped without a mutant: {test}")
    seconds: dict[str, float] = recorded["passed"]
    print(f"{len(seconds)} tests take {sum(seconds.values()):.0f} s", flush=True)
    data = CoverageData(str(measured))
    data.read()
    return Selection(data, copy.root, seconds)


def outcome(copy: Copy, mutant: Mutant, selection: Selection) -> tuple[str, str]:
    """Run the tests on a mutant. Return what happened, and the test that noticed it.

    What happened is `killed`, `timeout`, `survived`, or `untested` if no test runs its line.
    """
    tests = selection.tests(mutant)
    if not tests:
        return "untested", ""
    original = (ROOT / mutant.path).read_bytes()
    copy.write(mutant.path, mutant.source(original))
    # Most fall to the first few, whose files are soon collected.
    parts = (tests[:FIRST], tests[FIRST:])
    outcomes = (
        _outcome(copy, [(test, selection.seconds[test]) for test in part]) for part in parts
    )
    found = next((noticed for noticed in outcomes if noticed), ("survived", ""))
    copy.write(mutant.path, original)
    return found


def _outcome(copy: Copy, tests: Sequence[tuple[str, float]]) -> tuple[str, str] | None:
    if not tests:
        return None
    chosen, running = copy.folder / "chosen", copy.folder / "running"
    chosen.write_text("\n".join(test for test, _ in tests), "utf-8")
    running.unlink(missing_ok=True)
    longest = 30 + 10 * max(seconds for _, seconds in tests)
    code, output = copy.pytest(
        "-x",
        *(f"--timeout={longest}", "-o", "timeout_method=thread"),
        *dict.fromkeys(test.partition("::")[0] for test, _ in tests),
        limit=longest + 10 * sum(seconds for _, seconds in tests),
        MUTANTS_CHOSEN=str(chosen),
        MUTANTS_RUNNING=str(running),
    )
    if code == 0:
        return None
    killer = running.read_text("utf-8") if running.exists() else "the import"
    return "timeout" if code is None or "+ Timeout +" in output else "killed", killer
