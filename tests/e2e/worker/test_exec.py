"""`jobledger worker exec`: the protocol of docs/guides/worker-programs.md, promise by promise."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from jobledger import JobStatus, RetryPolicy
from jobledger.cli.program import Program, last_lines, outcome_of
from jobledger.worker import Completed, Failed, Partial, Worker
from tests.support.forked import Forked
from tests.support.pages import ROOT

EXAMPLES = ROOT / "examples" / "workers"
COMPLETED = JobStatus.COMPLETED
PARTIAL = JobStatus.PARTIAL
FAILED = JobStatus.FAILED


class Exec:
    """Runs `jobledger worker exec` with a program, and jobs through it."""

    def __init__(self, target, client, job_type, directory):
        self._target, self._client, self._job_type = target, client, job_type
        self._stderr = directory / "worker.stderr"
        self.process = None

    def start(self, program, *options):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("JOBLEDGER_")}
        with self._stderr.open("wb") as stderr, Path(os.devnull).open("rb+") as nothing:
            command = ("worker", "exec", self._job_type, *options, "--", *program)
            self.process = Forked(
                "jobledger",
                ["--server", self._target, *map(str, command)],
                files=(nothing, nothing, stderr),
                env=environment,
            )

    @property
    def stderr(self):
        return self._stderr.read_text(errors="replace")

    async def run(self, program, parameters=None):
        """Run one job through a Python program; return it as it ended."""
        self.start([sys.executable, "-c", program])
        return await self.job(parameters)

    async def job(self, parameters=None, **options):
        job = await self._client.create_job(self._job_type, parameters, **options)
        return await self._client.wait(job.id, timeout=30)

    async def until(self, job_id, reached):
        async for message in self._client.watch(job_id):
            if reached(message.job):
                return message.job
        raise AssertionError("the job ended before")

    async def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.process.wait, 20) == 0

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def worker(server, client, job_type, tmp_path):
    worker = Exec(server.target, client, job_type, tmp_path)
    yield worker
    worker.close()


async def test_the_program_reads_the_job_as_json_on_stdin_followed_by_eof(worker):
    job = await worker.run(
        "import json, sys; job = json.loads(sys.stdin.read()); print(json.dumps({'job': job}))",
        {"scene": "castle"},
    )
    assert job.status == COMPLETED
    given = job.result["job"]
    assert (given["id"], given["status"]) == (job.id, "PROCESSING")
    assert (given["job_type"], given["attempt"]) == (job.job_type, 1)
    assert given["parameters"]["scene"] == "castle"


async def test_json_lines_on_stdout_report_progress_assets_and_the_result(worker, client):
    job = await worker.run(
        """
import json
for line in [
    {"progress": 40, "message": "decoded"},
    {"asset": {"asset_type": "image/png", "url": "https://example.com/a.png", "file_size": 7}},
    {"not yet": True},
    {"progress": 41.9},
    {"count": 1, "progress": "is a word like any other here"},
]:
    print(json.dumps(line))
"""
    )
    assert (job.status, job.result["count"]) == (COMPLETED, 1)
    assert "not yet" not in job.result
    assert job.progress_message == "decoded"
    (asset,) = [asset async for asset in client.list_assets(job.id)]
    assert (asset.asset_type, asset.url, asset.file_size) == (
        "image/png",
        "https://example.com/a.png",
        7,
    )


async def test_other_output_of_a_program_goes_to_the_workers_stderr(worker):
    job = await worker.run(
        "print('starting'); print('[1]'); print('NaN');"
        "print('{\"a\": NaN}'); import sys; print('from stderr', file=sys.stderr)"
    )
    assert job.status == COMPLETED
    assert job.result is None
    for line in ("starting", "[1]", "NaN", '{"a": NaN}', "from stderr"):
        assert f"{line}\n" in worker.stderr


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({"progress": "much"}, 'progress: "much" is not a number'),
        ({"progress": True}, "progress: true is not a number"),
        ({"progress": -0.5}, "progress: -0.5 is not from 0 to 100"),
        ({"progress": 5, "message": 7}, "message: 7 is not a text"),
    ],
)
async def test_a_report_that_is_none_stops_the_program_and_is_the_error(worker, report, words):
    line = json.dumps(report)
    job = await worker.run(f"import time; print({line!r}, flush=True); time.sleep(60)")
    assert (job.status, job.error.reason, job.error.message) == (FAILED, "VALUE_ERROR", words)


async def test_a_line_of_more_than_2_mib_stops_the_program_and_is_the_error(worker):
    job = await worker.run("print('x' * (2 * 1024 * 1024 + 1), flush=True); input()")
    assert (job.status, job.error.reason) == (FAILED, "VALUE_ERROR")
    assert job.error.message == "a line of more than 2097152 bytes on stdout"


async def test_a_long_line_that_is_no_object_is_cut_in_the_workers_log(worker):
    job = await worker.run("print('y' * 70_000)")
    assert job.status == COMPLETED
    assert f"{'y' * 65536} [...]\n" in worker.stderr


PRINTS = """
import json, sys
def out(text): sys.stdout.write(text); sys.stdout.flush()
def err(text): sys.stderr.write(text); sys.stderr.flush()
"""


async def output_of(client, job, stream=""):
    async with asyncio.timeout(20):
        return b"".join([piece.data async for piece in client.output(job, stream=stream)])


async def test_lines_for_people_are_the_jobs_output_and_messages_for_the_worker_are_not(
    worker, client
):
    program = PRINTS + (
        'out("decoding\\n"); out(json.dumps({"progress": 40}) + "\\n"); out("[1, 2]\\n")\n'
        'out(json.dumps({"frames": 7}) + "\\n"); out("no end of line")'
    )
    job = await worker.run(program)
    assert (job.status, job.progress, job.result) == (COMPLETED, 100, {"frames": 7})
    assert await output_of(client, job) == b"decoding\n[1, 2]\nno end of line"
    assert dict(job.output_streams) == {"": "text/plain; charset=utf-8"}


async def test_stderr_is_output_in_whole_lines_and_bytes_are_as_they_were(worker, client):
    program = PRINTS + (
        "import os\n"
        'os.write(2, b"one "); os.write(2, b"line \\xff\\n50 %\\r"); os.write(2, b"the rest")'
    )
    job = await worker.run(program)
    assert await output_of(client, job) == b"one line \xff\n50 %\rthe rest"


async def test_all_that_a_program_has_written_is_output_though_it_has_exited(worker, client):
    program = PRINTS + 'out(("x" * 99 + "\\n") * 9000)'
    job = await worker.run(program)
    assert job.status is COMPLETED
    assert await output_of(client, job) == (b"x" * 99 + b"\n") * 9000


async def test_without_output_nothing_of_it_is_sent(worker, client):
    worker.start([sys.executable, "-c", PRINTS + 'out("a\\n"); err("b\\n")'], "--no-output")
    job = await worker.job()
    assert await output_of(client, job) == b""
    assert not job.output_streams
    assert {"a", "b"} <= set(worker.stderr.splitlines())


async def test_variables_of_the_environment_name_the_job(worker):
    job = await worker.run(
        "import json, os; print(json.dumps({k: v for k, v in os.environ.items()"
        " if k.startswith('JOBLEDGER_')}))"
    )
    assert job.result.pop("JOBLEDGER_WORKER_ID")
    assert job.result == {
        "JOBLEDGER_JOB_ID": job.id,
        "JOBLEDGER_JOB_TYPE": job.job_type,
        "JOBLEDGER_ATTEMPT": "1",
        "JOBLEDGER_MAX_ATTEMPTS": str(job.retry_policy.max_attempts),
        "JOBLEDGER_USER_ID": job.user_id,
    }


async def test_a_program_may_close_stdin_and_stdout(worker):
    job = await worker.run("import os; os.close(0); os.close(1)", {"blob": "x" * 200_000})
    assert job.status == COMPLETED


@pytest.mark.parametrize(
    ("code", "status", "reason"), [(3, PARTIAL, "EXIT_3"), (1, FAILED, "EXIT_1")]
)
async def test_the_exit_code_is_the_status_and_stderr_the_message(worker, code, status, reason):
    job = await worker.run(
        f"import sys; print('{{\"half\": true}}'); print('disk', file=sys.stderr);"
        f"print('full', file=sys.stderr); sys.exit({code})"
    )
    assert (job.status, job.error.reason, job.error.message) == (status, reason, "disk\nfull")
    assert job.result["half"] is True


async def test_exit_code_75_is_a_retryable_failure_and_a_checkpoint_is_on_the_next_stdin(worker):
    program = """
import json, sys
job = json.load(sys.stdin)
frame = (job["checkpoint"] or {"frame": 0})["frame"]
if frame < 2:
    print(json.dumps({"progress": 40, "message": "rendered", "checkpoint": {"frame": 1}}))
    print(json.dumps({"checkpoint": {"frame": frame + 1}}))
    print(f"no frame {frame}", file=sys.stderr)
    sys.exit(75)
print(json.dumps({"frame": frame, "last": job["last_error"]["message"]}))
"""
    worker.start([sys.executable, "-c", program])
    policy = RetryPolicy(max_attempts=3, initial_backoff=0.1)
    job = await worker.job(retry_policy=policy)
    assert (job.status, job.attempt) == (COMPLETED, 3)
    assert job.result == {"frame": 2, "last": "no frame 1"}
    assert job.last_error.reason == "EXIT_75"
    once = await worker.job(retry_policy=RetryPolicy(max_attempts=1))
    assert (once.status, once.error.reason) == (FAILED, "EXIT_75")


async def test_only_an_object_is_a_checkpoint(worker):
    job = await worker.run(
        'print(\'{"progress": 1, "checkpoint": [1]}\'); print(\'{"checkpoint": "model.pt"}\')'
    )
    assert (job.result, job.checkpoint) == ({"checkpoint": "model.pt"}, None)
    assert '{"progress": 1, "checkpoint": [1]}\n' in worker.stderr


async def test_a_program_that_dies_of_a_signal_is_a_lost_attempt(worker):
    program = """
import json, os, signal, sys
if json.load(sys.stdin)["attempt"] == 1:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    worker.start([sys.executable, "-c", program])
    job = await worker.job(retry_policy=RetryPolicy(initial_backoff=0.1))
    assert (job.status, job.attempt, job.last_error.reason) == (COMPLETED, 2, "SIGNAL_KILL")
    once = await worker.job(retry_policy=RetryPolicy(max_attempts=1))
    assert (once.status, once.error.reason) == (FAILED, "SIGNAL_KILL")


@pytest.mark.parametrize(
    ("asset", "words"),
    [
        ({"asset_type": "image/png"}, "url"),  # by the service
        ({"asset_type": "image/png", "link": "x"}, "link"),
    ],
)
async def test_an_invalid_asset_line_makes_the_job_failed(worker, asset, words):
    line = json.dumps({"asset": asset})
    job = await worker.run(f"import time; print({line!r}, flush=True); time.sleep(60)")
    assert job.status == FAILED
    assert words in job.error.message


async def test_a_big_result_arrives(worker):
    job = await worker.run("import json; print(json.dumps({'blob': '\\u00fc' * 100_000}))")
    assert job.status == COMPLETED
    assert len(job.result["blob"]) == 100_000


@pytest.mark.parametrize("session", [False, True])
async def test_child_processes_that_outlive_a_program_do_not_delay_its_job(worker, session):
    job = await worker.run(
        "import subprocess; "
        f"p = subprocess.Popen(['sleep', '60'], start_new_session={session}); "
        "print('{\"pid\": %d}' % p.pid)"
    )
    assert job.status == COMPLETED
    pid = int(job.result["pid"])
    if session:
        # It has left the program's process group, so it is not stopped.
        os.kill(pid, signal.SIGKILL)
    assert await gone(pid)


async def test_the_last_output_of_a_program_is_reported_even_by_a_slow_service(
    service, fake_client, running, monkeypatch
):
    monkeypatch.setattr("jobledger.cli.program.LAST_WORDS", 0.05)
    program = 'print(\'{"asset": {"url": "https://a/b"}}\'); print(\'{"count": 1}\')'
    worker = Worker(fake_client)
    worker.handler("render")(Program([sys.executable, "-c", program]).handle)

    async def slowly(request, context):
        await asyncio.sleep(1)

    service.rules["CreateAsset"] = slowly
    service.offer()
    running(worker)
    end = await service.called("TransitionJob")
    assert (end.target_status, end.finish.result["count"]) == (COMPLETED.to_proto(), 1)


CHILDREN = """
import os, signal, subprocess, sys, time
{setup}
child = subprocess.Popen(['sleep', '300'])
print('{{"progress": 10, "message": "%d %d"}}' % (os.getpid(), child.pid), flush=True)
time.sleep(300)
"""


async def cancelled(worker, client, job_type, setup=""):
    worker.start([sys.executable, "-c", CHILDREN.format(setup=setup)], "--lease", "5s")
    job = await client.create_job(job_type)
    job = await worker.until(job.id, lambda job: job.progress_message)
    await client.cancel_job(job.id, "not needed")
    return job, [int(pid) for pid in job.progress_message.split()]


async def gone(pid):
    async with asyncio.timeout(20):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
    return True


async def test_a_cancelled_job_stops_its_program_and_its_child_processes(worker, client, job_type):
    job, pids = await cancelled(worker, client, job_type)
    done = await client.wait(job.id, timeout=20)
    assert (done.status, done.error.reason, done.error.message) == (
        FAILED,
        "CANCELLED",
        "not needed",
    )
    for pid in pids:
        assert await gone(pid)


async def test_a_cancelled_program_gets_sigterm_first_and_may_clean_up(
    worker, client, job_type, tmp_path
):
    file = tmp_path / "tidied"
    tidy = f"signal.signal(signal.SIGTERM, lambda *_: (open({str(file)!r}, 'w'), sys.exit(0)))"
    job, _ = await cancelled(worker, client, job_type, tidy)
    done = await client.wait(job.id, timeout=9)
    assert done.error.reason == "CANCELLED"
    assert file.exists()


async def test_a_program_that_ignores_sigterm_is_killed(service, fake_client, running, monkeypatch):
    monkeypatch.setattr("jobledger.cli.program.KILL_AFTER", 0.1)
    deaf = CHILDREN.format(setup="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    worker = Worker(fake_client)
    worker.handler("render")(Program([sys.executable, "-c", deaf]).handle)
    job = service.offer()
    running(worker)
    report = (await service.called("UpdateProgress")).progress
    await service.streams[0].signal(job_id=job.id, attempt=1, cancel_requested={})
    await service.called("ReleaseJob")
    for pid in report.progress_message.split():
        assert await gone(int(pid))


async def test_a_stopping_worker_stops_its_programs_and_releases_their_jobs(
    worker, client, job_type
):
    program = [sys.executable, "-c", CHILDREN.format(setup="")]
    worker.start(program, "--grace", "0", "--concurrency", "2")
    jobs = [await client.create_job(job_type) for _ in range(2)]
    jobs = [await worker.until(job.id, lambda job: job.progress_message) for job in jobs]
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.process.wait, 20) == 0
    for job in jobs:
        left = await client.get_job(job.id)
        assert (left.status, left.worker_id) == (JobStatus.PROCESSING, "")
        for pid in job.progress_message.split():
            assert await gone(int(pid))


async def test_the_lines_of_programs_that_run_at_once_start_with_the_jobs_id(
    worker, client, job_type, tmp_path
):
    met = tmp_path / "met"
    program = f"""
import os, sys, time
print("half a ", file=sys.stderr, end="", flush=True)
open({str(met)!r} + f"/{{os.getpid()}}", "w")
while len(os.listdir({str(met)!r})) < 2:
    time.sleep(0.01)
print("line", file=sys.stderr, flush=True)
print("no protocol", flush=True)
print("no end", file=sys.stderr, end="")
"""
    met.mkdir()
    worker.start([sys.executable, "-c", program], "--concurrency", "2")
    jobs = [await client.create_job(job_type) for _ in range(2)]
    for job in jobs:
        done = await client.wait(job.id, timeout=30)
        assert done.status == COMPLETED
    await worker.stop()
    lines = worker.stderr.splitlines()
    for job in jobs:
        for text in ("half a line", "no protocol", "no end"):
            assert lines.count(f"{job.id} | {text}") == 1


def test_the_error_message_is_the_last_lines_of_stderr_that_fit():
    assert last_lines(b"") == ""
    lines = [f"line {number}" for number in range(20)]
    assert last_lines("\n".join(lines).encode()) == "\n".join(lines[-10:])
    assert last_lines(b"x" * 5000 + b"\n\n  \nlast\n") == "last"
    assert len(last_lines(b"x" * 5000)) == 4096
    assert "\0" not in last_lines(b"\xff\0")


def test_an_exit_code_without_stderr_has_a_default_message():
    assert outcome_of(0, None, b"noise") == Completed(None)
    assert outcome_of(3, {"a": 1}, b"") == Partial({"a": 1})
    assert outcome_of(7, None, b"") == Failed("exit code 7", "EXIT_7")
    assert outcome_of(75, None, b"") == Failed("exit code 75", "EXIT_75", retryable=True)
    by_signal = Failed("ended by SIGTERM", "SIGNAL_TERM", retryable=True)
    assert outcome_of(-signal.SIGTERM, None, b"") == by_signal
    assert outcome_of(-40, None, b"") == Failed("ended by SIG40", "SIGNAL_40", retryable=True)


@pytest.mark.polyglot
async def test_the_example_in_shell_works(worker, tmp_path):
    file = tmp_path / "a 'file'.txt"
    file.write_text("hello")
    worker.start([str(EXAMPLES / "checksum.sh")])
    done = await worker.job({"files": [str(file)]})
    assert (done.status, done.progress_message) == (COMPLETED, str(file))
    assert done.result[str(file)] == hashlib.sha256(b"hello").hexdigest()
    half = await worker.job({"files": [str(file), "/does/not/exist"]})
    assert (half.status, half.error.reason) == (PARTIAL, "EXIT_3")
    assert half.error.message == "no such file: /does/not/exist"
    none = await worker.job({"files": ["/does/not/exist"]})
    assert (none.status, none.error.reason) == (FAILED, "EXIT_1")


@pytest.mark.polyglot
async def test_the_example_in_javascript_works(worker, client):
    worker.start(["node", str(EXAMPLES / "wordcount.mjs")])
    done = await worker.job({"text": "To be, or not to be: Zürich."})
    assert done.status == COMPLETED
    assert dict(done.result) == {"words": 7, "different": 5}
    (asset,) = [asset async for asset in client.list_assets(done.id)]
    table = Path(asset.storage_path)
    assert table.stat().st_size == asset.file_size
    assert json.loads(table.read_text())["zürich"] == 1
    table.unlink()
    failed = await worker.job({})
    assert (failed.status, failed.error.reason) == (FAILED, "EXIT_2")
    assert failed.error.message == "parameters.text: a string is needed"


@pytest.mark.parametrize("address", ["127.0.0.1:nine", "127.0.0.1:{taken}"])
async def test_a_health_address_that_cannot_be_served_is_an_error(worker, address):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = address.format(taken=taken.getsockname()[1])
        worker.start(["true"], "--health", address)
        assert await asyncio.to_thread(worker.process.wait, 20) != 0
    assert "Traceback" not in worker.stderr
    assert address in worker.stderr
