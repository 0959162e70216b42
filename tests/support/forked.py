"""The project's programs as processes of their own that need not import anything.

Two thirds of what the tests compute was imports: a server takes most of a second to import what it
needs. Here one process imports it once, and each program is a fork of it. It gets its own
arguments, environment, folder and files, runs the same `main`, and has the same exit code. Only
Linux has what that needs: on other systems each program imports for itself.
"""

import atexit
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

ROOT = Path(__file__).parents[2]

FORKS = hasattr(os, "pidfd_open")

IMPORTED_LATER = (
    "alembic.command",
    "alembic.config",
    "grpc._channel",
    "grpc._interceptor",
    "jobledger.worker",
    "jobledger_server.sql.postgresql.notifications",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.h11_impl",
    "uvloop",
)
"""What the programs import once they need it."""


class Forked:
    """A program under way, with the part of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        *,
        files: tuple[IO[bytes], IO[bytes], IO[bytes]],
        env: Mapping[str, str],
        cwd: Path | None = None,
    ) -> None:
        self.returncode: int | None = None
        self._own: subprocess.Popen[bytes] | None = None
        """The program, if it is no fork."""
        if not FORKS:
            self._own = _started(program, arguments, files, env, cwd)
            self.pid = self._own.pid
            return
        start = {
            "program": program,
            "arguments": arguments,
            "env": dict(env),
            "cwd": str(cwd or ""),
        }
        status, ended = os.pipe()
        request = os.memfd_create("request")
        os.write(request, json.dumps(start).encode())
        self.pid = _forks().fork([request, ended, *(file.fileno() for file in files)])
        os.close(request)
        os.close(ended)
        self._status = os.fdopen(status, "rb", buffering=0)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self._own is not None:
            self.returncode = self._own.wait(timeout)
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired("a forked program", timeout or 0)
            self.returncode = int(self._status.read())
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _started(
    program: str,
    arguments: Sequence[str],
    files: tuple[IO[bytes], IO[bytes], IO[bytes]],
    env: Mapping[str, str],
    cwd: Path | None,
) -> "subprocess.Popen[bytes]":
    script = Path(sys.executable).with_name(program)
    command = [sys.executable, "-c"] if program == "python" else [str(script)]
    stdin, stdout, stderr = files
    return subprocess.Popen(
        [*command, *arguments], stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd
    )


class Piped(Forked):
    """A program whose output is read while it runs. What is not given is a pipe, or empty."""

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> None:
        with contextlib.ExitStack() as theirs:

            def pipe() -> tuple[IO[str], IO[bytes]]:
                ours, end = os.pipe()
                return os.fdopen(ours), theirs.enter_context(os.fdopen(end, "wb"))

            def given(file: int) -> IO[bytes]:
                return theirs.enter_context(os.fdopen(os.dup(file), "rb+", buffering=0))

            self.stdout: IO[str] | None = None
            self.stderr, err = pipe()
            if stdout is None:
                self.stdout, out = pipe()
            else:
                out = given(stdout)
            nothing = theirs.enter_context(Path(os.devnull).open("rb"))
            files = (nothing if stdin is None else given(stdin), out, err)
            super().__init__(program, arguments, files=files, env=env, cwd=cwd)

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str]:
        """Read both outputs to their ends, and wait for the program."""
        with ThreadPoolExecutor() as threads:
            out, err = threads.map(_rest, (self.stdout, self.stderr))
        self.wait(timeout)
        return out, err or ""


def _rest(file: IO[str] | None) -> str | None:
    if file is None or file.closed:
        return None
    with file:
        return file.read()


def run(
    program: str,
    *arguments: str,
    env: Mapping[str, str],
    cwd: Path | None = None,
    given: str = "",
    timeout: float = 60,
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; `given` is its standard input."""
    with TemporaryFile() as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
        stdin.write(given.encode())
        stdin.seek(0)
        process = Forked(program, arguments, files=(stdin, stdout, stderr), env=env, cwd=cwd)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        for written in (stdout, stderr):
            written.seek(0)
        return subprocess.CompletedProcess(
            [program, *arguments], code, stdout.read().decode(), stderr.read().decode()
        )


class _Forks:
    """The process that forks, as this one sees it. It ends, with all that it forked, with this."""

    def __init__(self) -> None:
        own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = own
        self._lock = threading.Lock()
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
        theirs.close()

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    def fork(self, files: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._socket, [b"fork"], files)
            return int(self._socket.recv(20))


@cache
def _forks() -> _Forks:
    forks = _Forks()
    atexit.register(forks.close)
    return forks


class _Children:
    """In the process that forks: its children, and where the exit code of each is awaited."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)

    def serve(self) -> list[int]:
        """Fork on request. Returns in each child, with its files."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._reap(key.fd, *key.data)
                elif (files := self._forked()) is not None:
                    return files

    def _forked(self) -> list[int] | None:
        """Fork; return the files in the child, and None in this process."""
        _, files, _, _ = socket.recv_fds(self._requests, 20, 5)
        if not files:  # who asked is gone
            for key in self._selector.get_map().values():
                if key.data is not None:
                    os.kill(key.data[0], signal.SIGKILL)
            sys.exit()
        if (pid := os.fork()) == 0:
            self._requests.close()
            for key in list(self._selector.get_map().values()):
                if key.data is not None:
                    os.close(key.fd)
                    os.close(key.data[1])
            self._selector.close()
            return files
        request, ended, *others = files
        for file in (request, *others):
            os.close(file)
        self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, ended))
        self._requests.send(str(pid).encode())
        return None

    def _reap(self, pidfd: int, pid: int, ended: int) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):
            os.write(ended, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(ended)


def _become(request: int, ended: int, *files: int) -> Any:
    """Be the program that was asked for; return its `main`."""
    os.close(ended)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    # What was opened on other files knows whether those were terminals, and could be read again.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.lseek(request, 0, os.SEEK_SET)
    with os.fdopen(request) as text:
        start = json.load(text)
    os.environ.clear()
    os.environ.update(start["env"])
    if start["cwd"]:
        os.chdir(start["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [start["program"], *start["arguments"]]
    return MAINS[start["program"]]


def _python() -> None:
    """Run the code that is the first argument, as `python -c` does."""
    exec(sys.argv.pop(1), {"__name__": "__main__"})


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import jobledger.cli.bars
    import jobledger.cli.commands
    import jobledger.cli.exit_codes
    import jobledger.cli.main
    import jobledger.cli.top
    import jobledger_gateway.__main__
    import jobledger_gateway.command
    import jobledger_server.__main__
    from jobledger_server.cli import (  # noqa: F401  # each is imported by its command else
        check_access,
        database_commands,
        health,
        serve,
    )
    from jobledger_server.database.url import parse_url
    from jobledger_server.sql.database import open_database
    from jobledger_server.sql.sql_store import SqlStore

    for name in IMPORTED_LATER:
        import_module(name)
    # A process makes the statements of a store once, which is half of what a server's start costs.
    for url in ("sqlite:///none", "postgresql://none"):
        SqlStore(open_database(parse_url(url)))
    MAINS = {
        "jobledger": jobledger.cli.main.main,
        "jobledger-gateway": jobledger_gateway.__main__.main,
        "jobledger-server": jobledger_server.__main__.main,
        "python": _python,
    }
    # Ctrl-C is for who asks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # a collection in a child would copy all that it was forked with
    main = _become(*_Children(socket.socket(fileno=int(sys.argv[1]))).serve())
    code: Any = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001  # as the interpreter does at its end
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # To take down all that it was forked with costs twice what the command line itself does.
    os._exit(code or 0)
