"""The arguments of `jobledger-server`, beyond what a running server shows."""

import asyncio
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from jobledger_server.app import open_app
from jobledger_server.cli.durations import LONGEST_SECONDS, duration
from jobledger_server.settings import Settings
from jobledger_server.sql.database import Database
from tests.support.access_file import write_access_file
from tests.support.databases import both_databases, execute
from tests.support.rpc_caller import Caller, calling, refusal, watching
from tests.support.server_process import ServerProcess, run_server


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("90", 90), ("1.5m", 90), ("2h", 7200), ("30d", 2_592_000), ("0", 0)],
)
def test_a_duration_has_a_unit_or_is_seconds(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "d", "-1s", "5 weeks", "nan", "inf", "1e400", f"{LONGEST_SECONDS + 1}s"]
)
def test_an_invalid_duration_is_refused_with_an_explanation(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write 90s, 5m, 2h or 30d"):
        duration(text)


def test_a_server_serves_with_extreme_settings(tmp_path: Path) -> None:
    longest, most = f"{LONGEST_SECONDS}s", str(10**12)
    settings = {"max-watch-age": longest, "max-connection-idle": longest, "heartbeat": longest}
    settings |= {"max-streams": most, "max-watches": most, "max-waiting": most, "grace": "0"}
    arguments = [each for name, value in settings.items() for each in (f"--{name}", value)]
    with ServerProcess(tmp_path, arguments=arguments) as server:
        assert server.terminate() == 0
    log = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert not [line for line in log if line["level"] != "info"]


@both_databases
async def test_void_tokens_voids_every_token_and_changes_no_job(database_url: str) -> None:
    settings = Settings(listen="127.0.0.1:0", database=database_url, grace=1.0)

    async def newest(call: Caller) -> Any:
        async with watching(call.WatchJobs()) as stream:
            while not (message := await stream.read()).synced:
                pass
            return message

    async with open_app(settings) as app, calling(app.address) as call:
        job = await call.job()
        token = (await newest(call)).resume_token
    done = run_server("void-tokens", "--database", database_url)
    assert (done.returncode, done.stdout) == (0, "all resume tokens are void now\n"), done.stderr
    async with open_app(settings) as app, calling(app.address) as call:
        refused = await refusal(call.WatchJobs(resume_token=token).read())
        assert refused.reason == "INVALID_TOKEN"
        assert (await call.GetJob(job_id=job.id, user_id="ada")).job == job


@both_databases
async def test_check_names_what_is_wrong_beside_a_server_and_repair_mends_the_feed(
    database_url: str, database: Database
) -> None:
    check = ["check", "--database", database_url]
    settings = Settings(listen="127.0.0.1:0", database=database_url, grace=1.0)
    async with open_app(settings) as app, calling(app.address) as call:
        job = await call.running()
        async with watching(call.WatchJobs()) as stream:
            while not (message := await stream.read()).synced:
                pass
        sound = await asyncio.to_thread(run_server, *check)
        assert (sound.returncode, sound.stdout) == (0, "the database is sound\n"), sound.stderr
    await execute(
        database, "DELETE FROM changes", "UPDATE queues SET ready = 7 WHERE fairness_key = ''"
    )
    damaged = run_server(*check)
    lines = damaged.stdout.splitlines()
    assert f"start_seq of a job has its row in the feed: id {job.id}, start_seq 2" in lines[0]
    assert "level ('render', 5)" in lines[-1]
    assert damaged.returncode == 1
    assert damaged.stderr == "Error: the database is damaged, as the lines above say\n"
    repaired = run_server(*check, "--repair")
    assert repaired.stdout.splitlines() == [
        "jobs whose rows in the feed were made again: 1",
        lines[-1],  # what is not the feed is not mended
    ]
    async with open_app(settings) as app, calling(app.address) as call:
        refused = await refusal(call.WatchJobs(resume_token=message.resume_token).read())
        assert refused.reason == "INVALID_TOKEN"
        async with watching(call.WatchJobs()) as stream:
            while not (message := await stream.read()).synced:
                pass
            ended = (await call.MarkCompleted(job_id=job.id, attempt=1)).job
            assert [change.job for change in (await stream.read()).changes.changes] == [ended]


@pytest.mark.parametrize("command", ["check", "void-tokens"])
def test_a_command_about_a_database_creates_none(tmp_path: Path, command: str) -> None:
    done = run_server(command, cwd=tmp_path)
    error = "Error: cannot use the database sqlite:///jobledger.db: No such file or directory\n"
    assert (done.returncode, done.stderr) == (1, error)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_with_an_explanation(tmp_path: Path) -> None:
    (tmp_path / "jobledger.db.lock").symlink_to("/dev/full")
    done = run_server("migrate", cwd=tmp_path)
    error = "Error: cannot use the database sqlite:///jobledger.db: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, error)


async def test_changes_are_delivered_although_the_lock_file_cannot_be_written(
    tmp_path: Path, sqlite_template: Path
) -> None:
    shutil.copy(sqlite_template, tmp_path / "jobledger.db")
    database = f"sqlite:///{tmp_path}/jobledger.db"
    async with (
        open_app(Settings(listen="127.0.0.1:0", database=database, grace=1.0)) as app,
        calling(app.address) as call,
    ):
        descriptors = Path("/proc/self/fd").iterdir()
        (lock,) = (each for each in descriptors if os.path.realpath(each).endswith(".db.lock"))
        with Path("/dev/full").open("rb+", buffering=0) as full:
            os.dup2(full.fileno(), int(lock.name))
        job = await call.job()
        async with watching(call.WatchJob(job_id=job.id, user_id="ada")) as stream:
            assert (await stream.read()).job == job
            await call.CancelJob(job_id=job.id, user_id="ada")
            assert (await stream.read()).job.status != job.status


@pytest.mark.parametrize(
    ("flags", "variables"),
    [(["--database-file", "url"], {}), ([], {"JOBLEDGER_DATABASE_FILE": "url"})],
)
def test_a_file_can_hold_the_database_url(
    tmp_path: Path, flags: list[str], variables: dict[str, str]
) -> None:
    (tmp_path / "url").write_text("sqlite:///kept.db\n")
    done = run_server("migrate", *flags, cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kept.db").exists()
    assert not (tmp_path / "jobledger.db").exists()


def test_a_database_url_comes_from_one_source(tmp_path: Path) -> None:
    by_file = ["serve", "--database-file", "url"]
    both = run_server(*by_file, "--database", "sqlite:///x.db", cwd=tmp_path)
    assert both.returncode == 2
    assert "--database and --database-file exclude each other" in both.stderr
    assert run_server(*by_file, cwd=tmp_path, JOBLEDGER_DATABASE="sqlite:///x.db").returncode == 2
    missing = run_server(*by_file, cwd=tmp_path)
    assert missing.returncode == 1
    assert "cannot read the database URL from url: No such file" in missing.stderr


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.glob("kept*")}


def test_files_that_the_server_creates_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, database=f"sqlite:///{tmp_path}/kept.db") as server:
        names = ("kept.db", "kept.db-shm", "kept.db-wal", "kept.db.lock")
        assert modes(tmp_path) == dict.fromkeys(names, 0o600)
    assert "file_readable_by_others" not in server.log.read_text()


def test_files_that_others_may_read_are_named_in_the_log(tmp_path: Path) -> None:
    access, url, kept = tmp_path / "access.toml", tmp_path / "url", tmp_path / "kept.db"
    write_access_file(
        access, f"[[caller]]\nname='a'\ntoken_sha256='{'0' * 64}'\nroles=['operator']"
    )
    url.write_text(f"sqlite:///{kept}")
    kept.touch()
    for file in (access, url, kept):
        file.chmod(0o640)
    arguments = ["--access", str(access)]
    with ServerProcess(tmp_path, database_file=url, arguments=arguments) as server:
        pass
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    named = {line["file"] for line in lines if line["event"] == "file_readable_by_others"}
    assert {str(access), str(url), str(kept)} <= named
    assert {line["mode"] for line in lines if "mode" in line} == {"0640"}


async def test_a_unix_socket_is_for_its_owner_only(tmp_path: Path, sqlite_template: Path) -> None:
    shutil.copy(sqlite_template, tmp_path / "jobledger.db")
    database = f"sqlite:///{tmp_path}/jobledger.db"
    # The path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        socket_file = Path(folder, "socket")
        usual = os.umask(0)
        try:
            async with open_app(Settings(listen=f"unix:{socket_file}", database=database)) as app:
                assert stat.S_IMODE(socket_file.stat().st_mode) == 0o600
                async with calling(app.address) as call:
                    assert await call.job()
        finally:
            left = os.umask(usual)
        assert left == 0


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_second_server_is_refused_under_any_name_of_the_file(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    other = tmp_path / "elsewhere" / "other.db"
    other.parent.mkdir()
    with ServerProcess(tmp_path, database=f"sqlite:///{tmp_path}/kept.db"):
        link(other, tmp_path / "kept.db")
        for name in (other, Path("elsewhere/other.db"), Path("kept.db")):
            done = run_server("migrate", "--database", f"sqlite:///{name}", cwd=tmp_path)
            assert done.returncode == 1, name
            assert re.search("another jobledger-server|hard links", done.stderr), done.stderr
    if link is Path.symlink_to:
        assert (
            run_server("migrate", "--database", f"sqlite:///{other}", cwd=tmp_path).returncode == 0
        )
