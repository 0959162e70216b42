"""The commands of the pages do what the pages say, on a real server."""

import hashlib
import inspect
import json
import os
import re
import shlex
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobledger import Client, JobStatus, Worker
from jobledger.cli.profiles import read_profile
from jobledger_server.rpc.access.access_file import read_access_file
from tests.e2e.docs.programs import shell
from tests.support import forked
from tests.support.access_file import write_access_file
from tests.support.forked import Piped
from tests.support.pages import (
    BACKUP,
    CLI,
    DATABASES,
    DEPLOY,
    QUICKSTART,
    ROOT,
    SECURITY,
    TUTORIAL,
    Block,
    blocks,
    commands,
    spans,
)
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess
from tests.support.shared_postgres import Databases

PRODUCTION = ROOT / "docs/operate/workers.md"
DEFAULT_TARGET = "127.0.0.1:50051"
PAGES_DATABASE = "postgresql://user:password@db.example/jobledger"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


def run(lines: list[str], where: Path, target: str = DEFAULT_TARGET) -> str:
    """Run a page's lines in a shell, with the programs of this environment, at this server."""
    programs = Path(sys.executable).parent
    text = "\n".join(lines).replace(".venv/bin/", f"{programs}/").replace(DEFAULT_TARGET, target)
    shell = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=where,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert shell.returncode == 0, shell.stderr
    return shell.stdout


def only(page: Path, words: str) -> str:
    """Return the one command of a page that has these words."""
    (command,) = [command for command in commands(page) if words in command]
    return command


def test_the_quickstarts_lines_create_and_watch_a_job_list_it_and_show_its_attempts(
    server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    (block,) = [b for b in blocks(QUICKSTART, "console") if " create " in b.text]
    create, watch = block.commands
    variables: dict[str, str] = {}
    shell(create, server.target, tmp_path, variables)
    job_id = variables["JOB"]
    ada.start_job(job_id)
    assert ada.get_job(job_id).parameters == {"name": "Ada"}
    ada.mark_completed(job_id, attempt=1)
    printed = shell(watch, server.target, tmp_path, variables)
    last = json.loads(printed.splitlines()[-1])
    assert (last["job"]["id"], last["job"]["status"]) == (job_id, "COMPLETED")
    attempts, listed = only(QUICKSTART, " attempts "), only(QUICKSTART, " list ")
    assert "COMPLETED" in shell(attempts, server.target, tmp_path, variables)
    assert job_id in shell(listed, server.target, tmp_path)


def test_the_lines_of_the_command_lines_page_create_list_show_cancel_and_delete_a_job(
    server: ServerProcess, tmp_path: Path
) -> None:
    (block,) = blocks(CLI, "console")
    variables: dict[str, str] = {}
    lines = shell("\n".join(block.commands), server.target, tmp_path, variables).splitlines()
    job_id = variables["JOB"]
    assert [line for line in lines if line.startswith(f"{job_id}  QUEUED")]
    assert not [line for line in lines if line.startswith("cancelled")]
    cancel, delete = (
        span for span in spans(CLI) if span.startswith(("jobledger cancel ", "jobledger delete "))
    )
    for command, done in ((cancel, "cancelled"), (delete, "deleted")):
        printed = shell(command.replace("JOB", job_id), server.target, tmp_path)
        assert printed == f"{done} {job_id}\n"


def test_the_line_of_the_page_deletes_old_failed_jobs_and_no_others(
    server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    old, new = ada.cancel_job(ada.create_job("a").id), ada.create_job("b")
    (text,) = [block.text for block in blocks(CLI, "sh") if "delete" in block.text]
    shell(text.replace("7d", "0s"), server.target, tmp_path)
    assert new in list(ada.list_jobs())
    assert old not in list(ada.list_jobs())


def test_the_profiles_of_the_page_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks(CLI, "toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "jobledger" / "config.toml"
    file.parent.mkdir()
    file.write_text(block.text)
    assert read_profile(None) == {"user": "ada"}
    staging = read_profile("staging")
    assert staging["token_file"] == str(file.parent / "staging.token")
    assert staging["ca_file"] == str(Path.home() / "certificates" / "staging.pem")


def test_the_quickstarts_buf_curl_creates_a_job(
    server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    answer = json.loads(run([only(QUICKSTART, "buf curl")], tmp_path, server.target))
    job = ada.get_job(answer["job"]["id"])
    assert (job.user_id, job.job_type) == ("ada", "greet")
    assert job.status == JobStatus.QUEUED


def test_the_tutorials_postgresql_steps_start_a_working_server(
    postgres: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres.create_database()
    export, migrate, serve = [
        only(TUTORIAL, words) for words in ("export ", " migrate", "--tls-cert")
    ]
    assert export == f"export JOBLEDGER_DATABASE={PAGES_DATABASE}"
    monkeypatch.setenv("JOBLEDGER_DATABASE", database)
    shell(migrate, "", tmp_path)
    assert serve.startswith(".venv/bin/jobledger-server serve ")
    with (
        ServerProcess(tmp_path, database=database) as server,
        Client(server.target, user_id="ada") as client,
    ):
        assert client.create_job("render").version == 1


def test_the_health_command_of_the_page_works(server: ServerProcess, tmp_path: Path) -> None:
    health = only(DEPLOY, " health").replace(DEFAULT_TARGET, server.target)
    assert shell(health, "", tmp_path) == "SERVING\n"


def test_a_token_and_its_line_by_the_pages_command(tmp_path: Path) -> None:
    said = run([only(SECURITY, "token_urlsafe")], tmp_path)
    token, line = re.fullmatch(r"token: (\S+)\n(token_sha256 = '.*')\n", said).groups()
    assert line == f"token_sha256 = '{hashlib.sha256(token.encode()).hexdigest()}'"
    file = tmp_path / "access.toml"
    write_access_file(file, f"[[caller]]\nname = 'web'\n{line}\nroles = ['operator']\n")
    read_access_file(file)


def test_the_access_files_of_the_page_are_valid_and_its_command_checks_them(
    tmp_path: Path,
) -> None:
    file, (whole, *more) = tmp_path / "access.toml", [b.text for b in blocks(SECURITY, "toml")]
    check = only(SECURITY, "check-access")
    file.write_text(whole)
    assert "  methods: " in shell(check, "", tmp_path)
    first = whole.removesuffix("\n[end]\n")
    # Each alone or with a caller, and all of them in one file.
    for text in (f"{first}\n{more[0]}", more[1], "\n".join([first, *more])):
        write_access_file(file, text)
        assert "  methods: " in shell(check, "", tmp_path)


def test_what_the_page_on_production_gives_a_worker_is_valid_and_leaves_it_time_to_stop(
    tmp_path: Path,
) -> None:
    rule, unit, deployment = (blocks(PRODUCTION, kind)[0] for kind in ("toml", "ini", "yaml"))
    write_access_file(tmp_path / "access.toml", rule.text)
    read_access_file(tmp_path / "access.toml")
    command = re.findall(r"^ExecStart=\S+/(.+) \S+$", unit.text, re.MULTILINE)
    spec = yaml.safe_load(deployment.text)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert [" ".join(container["args"][:3])] == command == ["jobledger worker run"]
    settings = {each["name"] for each in container["env"]}
    settings |= set(re.findall(r"JOBLEDGER_\w+", unit.text))
    known = forked.run("jobledger", "--help", env=dict(os.environ)).stdout
    assert [name for name in settings if name not in known] == []
    grace = inspect.signature(Worker).parameters["grace"].default
    stop = re.findall(r"^TimeoutStopSec=(\d+)", unit.text, re.MULTILINE)
    assert min(int(stop[0]), spec["terminationGracePeriodSeconds"]) > grace + 15


def test_the_certificates_of_the_page_make_a_server_that_its_client_can_call(
    tmp_path: Path,
) -> None:
    (makes,) = [block.commands for block in blocks(SECURITY, "console") if "openssl" in block.text]
    run(makes, tmp_path)
    target = f"localhost:{free_port()}"
    serve = only(SECURITY, "--tls-cert server.pem").replace("0.0.0.0:50051", target)
    program, *arguments = shlex.split(serve)
    environment = {**os.environ, "JOBLEDGER_TLS_CLIENT_CA": "ca.pem"}
    server = Piped(program, arguments, env=environment, cwd=tmp_path)
    try:
        assert any(json.loads(line)["event"] == "serving" for line in server.stderr)
        health = only(SECURITY, "--ca-file").replace("localhost:50051", target)
        assert shell(health, "", tmp_path) == "SERVING\n"
    finally:
        server.kill()
        server.communicate()


def test_a_backup_of_a_running_server_is_complete_and_private(
    tmp_path: Path,
) -> None:
    with (
        ServerProcess(tmp_path, database=f"sqlite:///{tmp_path}/jobledger.db") as server,
        Client(server.target, user_id="ada") as client,
    ):
        kept = [client.create_job("render").id for _ in range(20)]
        run([only(BACKUP, ".backup(")], tmp_path)
        client.create_job("render")
    assert stat.S_IMODE((tmp_path / "jobledger-backup.db").stat().st_mode) == 0o600
    restored = f"sqlite:///{tmp_path}/jobledger-backup.db"
    with (
        ServerProcess(tmp_path, database=restored) as server,
        Client(server.target, user_id="ada") as client,
    ):
        assert [job.id for job in client.list_jobs()] == kept[::-1]
        client.start_job(kept[0])


def queries(kind: str) -> list[Block]:
    return [b for b in blocks(DATABASES, "sql") if b.text.startswith((f"-- {kind}\n", "-- both\n"))]


def test_every_sql_query_of_the_page_names_its_database() -> None:
    firsts = {block.text.partition("\n")[0] for block in blocks(DATABASES, "sql")}
    assert firsts == {"-- SQLite", "-- PostgreSQL", "-- both"}
    assert len(queries("SQLite")) == len(queries("PostgreSQL"))


def check(rows: list[list[dict[str, Any]]], job: Any) -> None:
    """Compare the results of the queries with the only job."""
    newest, counted, payload, feed, stuck = rows
    assert str(newest[0]["id"]) == job.id
    created = job.create_time.strftime("%Y-%m-%d %H:%M:%S.%f")
    assert str(newest[0]["created"]).removesuffix("+00:00") == created
    assert counted == [{"job_type": "render", "status": "PROCESSING", "jobs": 1}]
    assert feed[0]["seq"] == 2
    assert stuck == []
    digits = re.search(r"echo (\w+) ", only(DATABASES, "json_format"))
    assert digits is not None
    assert payload[0]["parameters"] == digits[1]


def test_the_queries_for_sqlite_run(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, Client(server.target, user_id="ada") as client:
        job = client.start_job(client.create_job("render", {"frames": 240}).id)
    with closing(sqlite3.connect(tmp_path / "jobledger.db")) as database:
        database.row_factory = sqlite3.Row
        rows = [[dict(r) for r in database.execute(q.text)] for q in queries("SQLite")]
        check(rows, job)
        database.execute("UPDATE jobs SET update_time = update_time - 3700000000")
        stuck = database.execute(queries("SQLite")[-1].text).fetchall()
    assert [str(r["id"]) for r in stuck] == [job.id]
    assert json.loads(run([only(DATABASES, "json_format")], tmp_path)) == {"frames": 240}


def test_a_job_whose_worker_is_dead_can_be_finished(
    server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    job = ada.start_job(ada.create_job("render").id)
    run([only(DATABASES, "mark_failed").replace("JOB_ID", job.id)], tmp_path, server.target)
    assert ada.get_job(job.id).status is JobStatus.FAILED


async def test_the_queries_for_postgresql_run(
    postgres: Databases, postgres_template: str, tmp_path: Path
) -> None:
    import asyncpg

    url = postgres.create_database(postgres_template)
    async with ServerProcess(tmp_path, database=url) as server:
        with Client(server.target, user_id="ada") as client:
            job = client.start_job(client.create_job("render", {"frames": 240}).id)
    database = await asyncpg.connect(url)
    try:
        rows = [[dict(r) for r in await database.fetch(q.text)] for q in queries("PostgreSQL")]
        check(rows, job)
        await database.execute("UPDATE jobs SET update_time = update_time - 3700000000")
        stuck = await database.fetch(queries("PostgreSQL")[-1].text)
    finally:
        await database.close()
    assert [str(r["id"]) for r in stuck] == [job.id]
