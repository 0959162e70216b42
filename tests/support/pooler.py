"""A real PgBouncer in front of a PostgreSQL of the tests."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port
from tests.support.postgres_server import BECOME

NOT_FOUND = "no PgBouncer to test with: install Debian's `pgbouncer`"


@contextmanager
def pooled(url: str, **settings: str) -> Iterator[str]:
    """Yield the URL of a database through a PgBouncer with these settings."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        raise RuntimeError(NOT_FOUND)
    server, _, database = url.rpartition("/")
    host, port = server.rpartition("@")[2].split(":")
    own_port = free_port()
    with tempfile.TemporaryDirectory(prefix="jobledger-pgbouncer-") as folder:
        Path(folder).chmod(0o755)
        file = Path(folder, "pgbouncer.ini")
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(own_port),
            "unix_socket_dir": "",
            "auth_type": "any",
            **settings,
        }
        file.write_text(
            f"[databases]\n{database} = host={host} port={port} user=u\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in lines.items())
        )
        command = [program, "-q", str(file)]
        if os.geteuid() == 0:  # it refuses to run as root
            user = pwd.getpwnam("nobody")
            ids = (str(user.pw_gid), str(user.pw_uid))
            command = [sys.executable, "-I", "-S", "-c", BECOME, *ids, *command]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", own_port)) == 0:
                        break
            yield f"postgresql://u@127.0.0.1:{own_port}/{database}"
        finally:
            process.terminate()
            process.wait(10)
