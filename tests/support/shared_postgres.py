"""One PostgreSQL cluster for all processes of a test run.

The first process that needs the cluster starts it, in a process of its own: the keeper. Every
process that uses the cluster holds a shared lock on a file. The keeper waits for the exclusive
lock and closes the cluster when it has it, so the cluster ends with its last user, however that
user ended.

The cluster does not wait for the disk. A test about durability, and one that stops or freezes
PostgreSQL, makes a `PostgresServer` of its own.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.support.postgres_server import PostgresServer, find_binaries

ROOT = Path(__file__).parents[2]
DONE = "done"

# What a test may leave in the schema of its database, or in the planner's statistics.
_SCHEMA = """
    SELECT md5(string_agg(part, ' ' ORDER BY part)) FROM (
        SELECT concat_ws(' ', relname, relkind, relacl, attname, atttypid, attnotnull)
        FROM pg_class LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
        WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT conname FROM pg_constraint
        UNION ALL SELECT concat(proname, prosrc)
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT concat(starelid::regclass, staattnum)
        FROM pg_statistic WHERE starelid >= 16384
        UNION ALL SELECT setconfig::text FROM pg_db_role_setting
    ) AS parts (part)
"""

# As empty tables do, they have no pages for the planner to count.
_TRUNCATE = """
    DO $$ DECLARE filled text; BEGIN
        SELECT string_agg(oid::regclass::text, ', ') INTO filled FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0;
        EXECUTE 'TRUNCATE ' || filled || ' CASCADE';
    END $$
"""


class Template:
    """What a copy of a database is compared with and filled from before it is used again."""

    def __init__(self, port: int, name: str, schema: str) -> None:
        self.schema = schema
        self.free: list[str] = []
        url = f"postgresql://u@127.0.0.1:{port}/{name}"
        dump = [str(find_binaries() / "pg_dump"), "--data-only", "--inserts", url]
        lines = subprocess.run(dump, check=True, capture_output=True, text=True).stdout.split("\n")
        self.rows = " ".join(line for line in lines if line.startswith("INSERT"))


class Administrator:
    """A kept connection to a cluster, which makes and drops databases.

    A copy of a template is emptied and used again: making and dropping a database costs a fifth of
    a second of CPU. One whose schema a test has changed is dropped.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._templates: dict[str, Template] = {}
        self._copies: dict[str, Template] = {}
        self._connected = "postgres"
        self._psql = subprocess.Popen(
            [
                *(str(find_binaries() / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "u"),
                *("--no-psqlrc", "--quiet", "--tuples-only", "--no-align"),
                *("--set=ON_ERROR_STOP=1", "postgres"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def create(self, template: str) -> str:
        """Return the URL of a copy of a database."""
        if template == "template0":
            return self._url(self._created(template))
        if template not in self._templates:
            self._connect(template)
            schema = self._run(_SCHEMA)
            self._connect("postgres")  # no copy can be made of what somebody is connected to
            self._templates[template] = Template(self._port, template, schema)
        kept = self._templates[template]
        name = kept.free.pop() if kept.free else self._created(template)
        self._copies[name] = kept
        return self._url(name)

    def drop(self, url: str) -> None:
        """End all connections to a database, and drop it or keep it for the next test."""
        name = url.rpartition("/")[2]
        template = self._copies.pop(name, None)
        if template is not None:
            self._run(
                "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity "
                f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
            )
            self._connect(name)
            if self._run(_SCHEMA) == template.schema:
                self._run(f"{_TRUNCATE}; {template.rows}")
                template.free.append(name)
                return
        self._connect("postgres")
        self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        self._psql.communicate()

    def _url(self, name: str) -> str:
        return f"postgresql://u@127.0.0.1:{self._port}/{name}"

    def _connect(self, name: str) -> None:
        """Stay with a database: the next test is likely to use the same, and a session is dear."""
        if name != self._connected:
            self._run(f"\\c {name}")
            self._connected = name

    def _created(self, template: str) -> str:
        name = f"test_{uuid.uuid4().hex}"
        # Copying files costs half of what writing every page to the log costs.
        self._run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def _run(self, command: str) -> str:
        assert self._psql.stdin is not None
        assert self._psql.stdout is not None
        end = "" if command.startswith("\\") else ";"
        self._psql.stdin.write(f"{command}{end}\n\\echo {DONE}\n")
        self._psql.stdin.flush()
        answer = []
        while (line := self._psql.stdout.readline()) != f"{DONE}\n":
            if not line or "ERROR" in line or "FATAL" in line:  # psql has ended, or ends by itself
                raise RuntimeError(f"{command}: {line}{self._psql.stdout.read()}")
            answer.append(line.rstrip())
        return "\n".join(answer)


class Databases:
    """Databases in a shared cluster, dropped at the end of the block."""

    def __init__(self, administrator: Administrator) -> None:
        self._administrator = administrator
        self._made: list[str] = []

    def create_database(self, template: str = "template0") -> str:
        """Make a database, a copy of another one or an empty one, and return its URL."""
        url = self._administrator.create(template)
        self._made.append(url)
        return url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for url in self._made:
            self._administrator.drop(url)


@contextlib.contextmanager
def shared_postgres(folder: Path) -> Iterator[Administrator]:
    """Use the cluster of all processes that share a folder; start it if it does not run."""
    with (folder / "postgres.users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for a keeper that is closing the last cluster
        port = folder / "postgres.port"
        with (folder / "postgres.start").open("w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            if not port.exists():
                port.write_text(_started(folder))
        administrator = Administrator(int(port.read_text()))
        yield administrator
        administrator.close()


def _started(folder: Path) -> str:
    """Start a keeper, which outlives this process, and return the port of its cluster."""
    keeper = [sys.executable, "-m", __name__, str(folder)]
    started = subprocess.run(
        ["sh", "-c", '"$@" &', "sh", *keeper],
        check=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    if not started.stdout:
        raise RuntimeError("no PostgreSQL: see the keeper's error above")
    return started.stdout


def _keep(folder: Path) -> None:
    server = PostgresServer(durable=False)
    print(server.port, flush=True)  # noqa: T201
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())  # who started this waits for its end
    with (folder / "postgres.users").open("r") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        # The run may have ended and removed its folder by now.
        (folder / "postgres.port").unlink(missing_ok=True)
        server.close()


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
