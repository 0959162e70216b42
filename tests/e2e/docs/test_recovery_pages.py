"""What the pages on retries, schedules and failed jobs show does what they say."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobledger import Client, Job, JobStatus, RetryPolicy
from tests.e2e.docs.programs import output, program, shell
from tests.support.forked import Piped
from tests.support.pages import ROOT, blocks
from tests.support.server_process import ServerProcess

GUIDES = ROOT / "docs/guides"
RETRY, SCHEDULE = GUIDES / "retry.md", GUIDES / "schedule.md"
AGAIN = GUIDES / "run-failed-jobs-again.md"


@contextmanager
def running(command: list[str], where: Path) -> Iterator[Piped]:
    process = Piped("python", [command[2]], env=os.environ, cwd=where)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def until(client: Client, job: Job, reached: Callable[[Job], bool]) -> Job:
    """Return the first version of the job that is watched and has reached it."""
    with client.watch(job.id) as changes:
        return next(change.job for change in changes if reached(change.job))


def failed(client: Client, reason: str, **options: object) -> Job:
    """Return a new job of the type `render` that has failed for this reason."""
    job = client.create_job("render", **options)
    client.start_job(job.id)
    return client.mark_failed(job.id, "as told", reason=reason, attempt=1)


@pytest.fixture
def ada(own_server: ServerProcess) -> Iterator[Client]:
    with Client(own_server.target, user_id="ada") as client:
        yield client


def test_the_worker_of_the_page_imports_a_file_once_it_is_there(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    worker = program(RETRY, "import_rows", own_server)
    client = program(RETRY, "RetryPolicy(max_attempts=5)", own_server)
    with running(worker, tmp_path), running(client, tmp_path) as creator:
        with ada.watch_jobs() as events:
            job = next(event.job for event in events if event.job is not None)
        waiting = until(ada, job, lambda job: job.last_error is not None)
        assert waiting.last_error is not None
        assert (waiting.status, waiting.held) == (JobStatus.PROCESSING, False)
        assert waiting.last_error.reason == "FILE_NOT_FOUND_ERROR"
        (tmp_path / "rows.csv").write_text("")
        waiting = until(
            ada,
            job,
            lambda job: job.last_error is not None and job.last_error.reason == "RETRY_LATER",
        )
        assert waiting.schedule_time is not None
        (tmp_path / "rows.csv").write_text("1,2\n3,4\n")
        assert creator.stdout is not None
        assert creator.stdout.readline() == "{'rows': 2}\n"
        assert creator.wait(60) == 0  # an interrupt while it ends would leave it hanging in gRPC


def test_the_next_attempt_goes_on_after_the_checkpoint(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    tables = ["users", "orders", "items"]
    job = ada.create_job("migrate", {"tables": tables}, retry_policy=RetryPolicy(max_attempts=2))
    ada.start_job(job.id)
    ada.update_progress(job.id, 66, progress_message="orders", attempt=1, checkpoint={"tables": 2})
    ada.mark_failed(job.id, "as told", attempt=1, retryable=True)
    with running(program(RETRY, "def migrate", own_server), tmp_path), ada.watch(job.id) as changes:
        seen = [change.job for change in changes]
    assert seen[-1].status is JobStatus.COMPLETED
    assert seen[-1].result == {"tables": 3}
    messages = [job.progress_message for job in seen if job.attempt == 2]
    assert "items" in messages
    assert "users" not in messages


def test_the_schedules_of_the_page_wait_for_their_time(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    printed = output(program(SCHEDULE, "tomorrow", own_server), tmp_path)
    assert printed.startswith("QUEUED ")
    create, _ = blocks(SCHEDULE, "console")
    (command,) = create.commands
    job_id = shell(command, own_server.target, tmp_path).strip()
    due = ada.get_job(job_id).schedule_time
    assert due is not None
    assert abs(due - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=5)
    assert ada.claim_jobs(["report"]) == []


def test_the_time_of_a_job_is_changed_as_the_page_says(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    printed = output(program(SCHEDULE, "update_job", own_server), tmp_path)
    assert printed.endswith(" 9 2\n")
    assert len(ada.claim_jobs(["report"])) == 1
    job = ada.create_job("report")
    _, update = blocks(SCHEDULE, "console")
    later, now = (command.replace("JOB ", f"{job.id} ") for command in update.commands)
    due = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    later = later.replace("2027-06-01T18:00Z", due.isoformat())  # always in the future
    shell(later, own_server.target, tmp_path)
    assert ada.claim_jobs(["report"]) == []
    assert ada.get_job(job).schedule_time == due
    shell(now, own_server.target, tmp_path)
    assert [(each.id, each.priority) for each in ada.claim_jobs(["report"])] == [(job.id, 9)]


def test_the_nightly_job_of_the_page_is_created_once(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    (block,) = blocks(SCHEDULE, "sh")
    first, second = (shell(block.text, own_server.target, tmp_path) for _ in range(2))
    assert first == second


def test_failed_jobs_are_found_counted_and_repeated_as_the_page_says(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    full = [failed(ada, "DISK_FULL", labels={"number": str(n)}) for n in range(3)]
    other = failed(ada, "NO_GPU")
    found, one, many, _ = blocks(AGAIN, "console")
    every, by_reason = (
        shell(command, own_server.target, tmp_path).splitlines() for command in found.commands
    )
    assert len(every) == 1 + 4
    assert len(by_reason) == 1 + 3
    assert all("DISK_FULL" in line for line in by_reason[1:])
    counted = output(program(AGAIN, "Counter", own_server), tmp_path)
    assert counted == "Counter({'DISK_FULL': 3, 'NO_GPU': 1})\n"

    (command,) = one.commands
    repeat = command.replace("JOB", other.id)
    again, twice = (shell(repeat, own_server.target, tmp_path).strip() for _ in range(2))
    assert again == twice
    assert ada.get_job(again).origin_job_id == other.id

    (command,) = many.commands
    shell(f"{command} --yes --pace 5", own_server.target, tmp_path)
    new = [job for job in ada.list_jobs() if job.origin_job_id in {job.id for job in full}]
    assert len(new) == 3
    assert {job.labels["number"] for job in new} == {"0", "1", "2"}


def test_the_program_of_the_page_repeats_the_jobs_of_a_reason(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    job = failed(ada, "DISK_FULL")
    failed(ada, "NO_GPU")
    printed = output(program(AGAIN, "rerun_jobs", own_server), tmp_path)
    assert printed.splitlines() == [f"1 ['{job.id}']", "1"]


def test_the_commands_of_the_page_cancel_and_delete_what_matches(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    failed(ada, "DISK_FULL")
    ada.create_job("render", labels={"team": "film"})  # cancelled, and so FAILED
    other = ada.create_job("render")
    *_, block = blocks(AGAIN, "console")
    text = "\n".join(block.commands).replace("30d", "0s")
    shell(text, own_server.target, tmp_path)
    assert list(ada.list_jobs()) == [other]
