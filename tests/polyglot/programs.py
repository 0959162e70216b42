"""The example clients: what each needs, how it is built, and how it is run."""

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.pages import ROOT

CLIENTS = ROOT / "examples/clients"

Event = dict[str, Any]
Option = str | int | Path | list[str]


class BuildFailed(Exception):
    """A build ended with something other than 0; the message has what it wrote."""


@dataclass(frozen=True)
class Program:
    """One language's client. All commands run in its own folder."""

    name: str
    needs: tuple[str, ...]
    build: tuple[str, ...]
    run: str
    claims: bool = False
    """Whether its worker makes a call for everything. The others use the stream Work."""

    @property
    def folder(self) -> Path:
        return CLIENTS / self.name

    def missing(self) -> list[str]:
        """Return what it needs and the PATH does not have."""
        return [tool for tool in self.needs if shutil.which(tool) is None]

    def make(self) -> None:
        """Build it. Raises BuildFailed."""
        for command in self.build:
            done = subprocess.run(
                # The tests that run during the builds come first.
                ["nice", *command.split()],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode != 0:
                raise BuildFailed(f"{self.name}: {command}\n{done.stdout[-8000:]}")


# In the order of their builds and tests; those that take longest to build come last.
PROGRAMS = (
    Program(
        "python",
        ("python3",),
        (
            "python3 -m venv build/venv",
            "build/venv/bin/pip install -q -r requirements.txt",
            "sh generate.sh",
        ),
        "build/venv/bin/python main.py",
        claims=True,
    ),
    Program("node", ("node", "npm", "protoc"), ("npm ci", "npm run build"), "node build/main.js"),
    Program(
        "go", ("go", "protoc"), ("go generate ./...", "go build -o build/jobs ."), "build/jobs"
    ),
    # Short runs: the fast compiler alone, and the classes of one run kept for the next ones.
    Program(
        "java",
        ("java", "mvn"),
        (
            "env MAVEN_OPTS=-XX:TieredStopAtLevel=1 mvn -B -q package",
            "sh ../../../tests/polyglot/keep_classes.sh",
        ),
        "java -XX:TieredStopAtLevel=1 -XX:SharedArchiveFile=target/jobs.jsa -jar target/jobs.jar",
    ),
    Program(
        "cpp",
        ("cmake", "c++", "protoc", "grpc_cpp_plugin"),
        ("cmake -S . -B build", "cmake --build build --parallel 2"),
        "build/jobs",
    ),
    Program(
        "rust",
        ("cargo", "protoc"),
        ("env CARGO_PROFILE_DEV_DEBUG=0 cargo build --locked",),
        "target/debug/jobs",
    ),
)


@dataclass(frozen=True)
class Jobs:
    """A program that talks to one server: `jobs.run("create", user="ada", type="render")`."""

    program: Program
    target: str

    def run(self, command: str, *, exit_code: int = 0, **options: Option) -> list[Event]:
        """Run it to its end and return what it printed."""
        with self.start(command, **options) as running:
            return running.finish(exit_code=exit_code)

    def refused(self, command: str, **options: Option) -> Event:
        """Run it to the failure of its first call and return the error that it printed."""
        (error,) = self.run(command, exit_code=1, **options)
        return error

    @contextmanager
    def start(self, command: str, **options: Option) -> Iterator["Running"]:
        """Run it for as long as the block lasts, at most."""
        line = [*self.program.run.split(), command, "--server", self.target]
        for name, value in options.items():
            for each in value if isinstance(value, list) else [value]:
                line += [f"--{name.replace('_', '-')}", str(each)]
        running = Running(line, self.program.folder)
        try:
            yield running
        finally:
            running.kill()


class Running:
    """A program under way. What it prints is read as it comes."""

    def __init__(self, line: list[str], folder: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        self._process = subprocess.Popen(
            line,
            cwd=folder,
            env={**environment, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._words: list[bytes] = []
        self._readers = [
            threading.Thread(target=self._read_out),
            threading.Thread(target=self._read_err),
        ]
        for reader in self._readers:
            reader.start()

    def event(self, within: float = 30.0) -> Event | None:
        """Return the next line, or None where the program has closed its output."""
        try:
            line = self._lines.get(timeout=within)
        except queue.Empty:
            raise AssertionError(f"no line within {within:g} s; {self._said()}") from None
        if line is None:
            return None
        event = json.loads(line.decode("utf-8"))
        assert isinstance(event, dict), line
        return event

    def events(self, within: float = 30.0) -> Iterator[Event]:
        """Yield each line until the program has closed its output."""
        while (event := self.event(within)) is not None:
            yield event

    def finish(self, *, exit_code: int = 0, within: float = 30.0) -> list[Event]:
        """Return the remaining lines of a program that has to end with this code."""
        events = list(self.events(within))
        code = self._process.wait(within)
        assert code == exit_code, f"it ended with {code} after {events[-1:]}; {self._said()}"
        return events

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()

    def _said(self) -> str:
        return "it said: " + b"".join(self._words).decode(errors="replace")[-2000:]

    def _read_out(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as out:
            for line in out:
                self._lines.put(line)
        self._lines.put(None)

    def _read_err(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as err:
            self._words.extend(err)
