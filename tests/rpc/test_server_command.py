"""What `jobledger-server` is told at the command line, beyond what a running server shows."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import grpc
import pytest

from jobledger_server.app import open_app
from jobledger_server.config import Settings
from jobledger_server.durations import LONGEST_SECONDS, time_span
from rpc_caller import Caller, refusal, watching

SERVER = Path(sys.executable).with_name("jobledger-server")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("90", 90), ("1.5m", 90), ("2h", 7200), ("30d", 2_592_000), ("0", 0)],
)
def test_a_time_has_a_unit_or_is_seconds(text: str, seconds: float) -> None:
    assert time_span(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "d", "-1s", "5 weeks", "nan", "inf", "1e400", f"{LONGEST_SECONDS + 1}s"]
)
def test_what_is_no_time_is_refused_in_words(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write 90s, 5m, 2h or 30d"):
        time_span(text)


def test_a_server_told_no_time_does_not_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(SERVER), "serve", "--retain-terminal", "soon"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "'soon' is not a time" in done.stderr
    assert not list(tmp_path.iterdir())


async def test_void_tokens_makes_every_token_void_and_touches_no_job(database_url: str) -> None:
    settings = Settings(listen="127.0.0.1:0", database=database_url, grace=1.0)

    async def newest(call: Caller) -> Any:
        async with watching(call.WatchJobs()) as stream:
            while not (message := await stream.read()).synced:
                pass
            return message

    async with open_app(settings) as app, grpc.aio.insecure_channel(app.address) as channel:
        job = await Caller(channel).job()
        token = (await newest(Caller(channel))).resume_token
    done = subprocess.run(
        [str(SERVER), "void-tokens", "--database", database_url],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "every resume token is void now\n"), done.stderr
    async with open_app(settings) as app, grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        refused = await refusal(call.WatchJobs(resume_token=token).read())
        assert refused.reason == "INVALID_TOKEN"
        assert (await call.GetJob(job_id=job.id, user_id="ada")).job == job
