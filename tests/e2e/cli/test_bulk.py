"""`jobledger rerun`, `cancel` and `delete`, for one job and for many."""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import grpc
import pytest

from jobledger import JobFilters, JobStatus, NewJob
from jobledger.cli import commands
from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1 import job_service_pb2_grpc
from tests.e2e.cli.tmux import Tmux

PROGRAM = str(Path(sys.executable).with_name("jobledger"))
MANY = 500


@pytest.fixture
def on_a_terminal(jobledger):
    """Run a command on a terminal."""
    terminals = []

    def on_a_terminal(*arguments):
        environment = {**jobledger.environment}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        terminals.append(Tmux([PROGRAM, *arguments], environment, 120, 24))
        return terminals[-1]

    yield on_a_terminal
    for terminal in terminals:
        terminal.close()


def create(client, count, **options):
    """Create jobs; return their ids."""
    return [job.id for job in client.create_jobs([NewJob("render", **options)] * count)]


def failed(client, count, **options):
    """Create jobs that fail; return their ids."""
    ids = create(client, count, **options)
    for job_id in ids:
        client.start_job(job_id)
        client.mark_failed(job_id, "no", reason="NO_DISK", attempt=1)
    return ids


def cancelled(client, count, **options):
    """Create jobs and cancel them; return their ids."""
    ids = create(client, count, **options)
    assert client.cancel_jobs(job_types=["render"]).changed == count
    return ids


def has(words):
    return lambda screen: words in "\n".join(screen)


def test_retry_prints_the_id_of_the_new_job_each_time_the_same(jobledger, client):
    one, two = failed(client, 2)
    new = jobledger.ok("rerun", one).strip()
    assert client.get_job(new).origin_job_id == one
    assert jobledger.ok("rerun", one, two).splitlines()[0] == new
    assert json.loads(jobledger.ok("rerun", one, "--json"))["id"] == new


def test_a_filter_selects_the_jobs_that_are_run_again(jobledger, client):
    wrong = failed(client, 2, labels={"team": "a"})
    failed(client, 3, labels={"team": "b"})
    filters = ("--status", "failed", "--type", "render", "--reason", "NO_DISK")
    run = ("rerun", *filters, "--label", "team=a", "--yes")
    assert jobledger.ok(*run) == "rerun 2 jobs\n"
    new = list(client.list_jobs(statuses=[JobStatus.QUEUED]))
    assert {job.origin_job_id for job in new} == {*wrong}
    # They were repeated, so that nothing is left.
    assert jobledger.ok(*run) == "no job matches\n"
    assert json.loads(jobledger.ok(*run, "--json")) == {"matched": 0, "changed": 0}


def test_a_cancelled_job_is_shown_as_cancelled_and_run_again_only_if_it_is_named(jobledger, client):
    (wrong,) = cancelled(client, 1)
    (broken,) = failed(client, 1)
    assert jobledger.ok("list", "--cancelled").splitlines()[1].split()[:2] == [wrong, "CANCELLED"]
    assert jobledger.ok("list", "--not-cancelled").splitlines()[1].split()[:2] == [broken, "FAILED"]
    assert json.loads(jobledger.ok("get", wrong, "--json"))["cancelled"] is True
    assert jobledger.ok("rerun", "--all", "--yes") == "rerun 1 job\n"
    assert jobledger.ok("rerun", "--cancelled", "--yes") == "rerun 1 job\n"
    new = list(client.list_jobs(statuses=[JobStatus.QUEUED]))
    assert [job.origin_job_id for job in new] == [wrong, broken]


def test_a_pace_schedules_the_new_jobs(jobledger, client):
    failed(client, 5)
    out = jobledger.ok("rerun", "--all", "--pace", "0.5", "--yes")
    assert out == "rerun 5 jobs; the last one may start in 10s\n"
    new = client.list_jobs(statuses=[JobStatus.QUEUED])
    times = sorted(job.schedule_time.timestamp() for job in new)
    assert [later - times[0] for later in times] == pytest.approx([0, 2, 4, 6, 8])


def test_waiting_and_running_jobs_are_cancelled_by_filter(jobledger, client):
    held, waits = create(client, 2)
    client.start_job(held)
    assert jobledger.ok("cancel", "--not-held", "--yes", "--reason", "no") == "cancelled 1 job\n"
    assert client.get_job(waits).cancel_reason == "no"
    assert json.loads(jobledger.ok("cancel", "--held", "--yes", "--json")) == {
        "matched": 1,
        "changed": 1,
    }
    assert client.get_job(held).cancel_request_time is not None


def test_terminal_jobs_are_deleted_by_filter_and_no_others(jobledger, client):
    failed(client, 3)
    queued = client.create_job("render").id
    assert jobledger.ok("delete", "--status", "completed", "--yes") == "no job matches\n"
    assert jobledger.ok("delete", "--all", "--yes") == "deleted 3 jobs\n"
    assert [job.id for job in client.list_jobs()] == [queued]


def test_a_person_sees_how_many_jobs_there_are_and_can_say_no(client, on_a_terminal):
    ids = failed(client, 12)
    terminal = on_a_terminal("delete", "--status", "failed")
    screen = terminal.until(has("[y/N]"))
    assert [line.split()[0] for line in screen[1:11]] == ids[:1:-1]
    assert "NO_DISK" in screen[1]
    assert screen[11:] == ["and 2 more", "Delete 12 jobs? This cannot be undone. [y/N]"]
    terminal.press("Enter")
    screen = terminal.until(has("[exit code"))
    assert screen[-2:] == ["deleted no job", "[exit code 130]"]
    assert len(list(client.list_jobs())) == 12


def test_a_person_can_say_yes(client, on_a_terminal):
    failed(client, 3)
    terminal = on_a_terminal("rerun", "--status", "failed", "--pace", "0.01")
    terminal.until(has("Rerun 3 jobs, 0.01 a second, in 5m? [y/N]"))
    terminal.press("y")
    terminal.press("Enter")
    screen = terminal.until(has("[exit code"))
    assert screen[-2:] == ["rerun 3 jobs; the last one may start in 5m", "[exit code 0]"]
    assert len(list(client.list_jobs(statuses=[JobStatus.QUEUED]))) == 3


def test_the_end_of_the_input_is_a_no(client, on_a_terminal):
    failed(client, 1)
    terminal = on_a_terminal("delete", "--all")
    terminal.until(has("Delete 1 job?"))
    terminal.press("C-d")
    terminal.until(has("[exit code 130]"))
    assert len(list(client.list_jobs())) == 1


def test_a_bar_shows_how_many_of_many_jobs_are_done_and_nothing_of_it_stays(client, on_a_terminal):
    cancelled(client, MANY)
    terminal = on_a_terminal("delete", "--all", "--yes")
    bar = re.compile(rf"\N{{BOX DRAWINGS HEAVY HORIZONTAL}}+.* deleted [1-9]\d* of {MANY}")
    terminal.until(lambda screen: bar.search(screen[0]))
    screen = terminal.until(has("[exit code"))
    assert screen == [f"deleted {MANY} jobs", "[exit code 0]"]


def test_a_command_that_was_killed_in_the_middle_continues_and_repeats_no_job_twice(
    jobledger, client
):
    wrong = cancelled(client, MANY)

    def repeated(most=None):
        queued = client.list_jobs(statuses=[JobStatus.QUEUED], page_size=1000)
        return [job.origin_job_id for job in islice(queued, most)]

    command = ("rerun", "--cancelled", "--yes")
    process = jobledger.start(*command)
    while not repeated(1):
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=30)
    # The server may still be at the step that was under way.
    assert len(repeated()) < MANY
    assert jobledger.ok(*command).startswith("rerun ")
    assert sorted(repeated()) == sorted(wrong)


class Refuses(job_service_pb2_grpc.JobServiceServicer):
    """Refuses each step after the first."""

    def DeleteJobs(self, request, context):  # noqa: N802
        if request.page_token:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no more")
        return jobs.DeleteJobsResponse(matched=100, changed=100, next_page_token="next")


def test_an_error_in_the_middle_says_what_was_done_before(shell):
    server = grpc.server(ThreadPoolExecutor(2))
    job_service_pb2_grpc.add_JobServiceServicer_to_server(Refuses(), server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        run = shell(target, "ada")("delete", "--all", "--yes")
    finally:
        server.stop(0).wait()
    assert (run.returncode, run.stdout) == (7, "")
    assert run.stderr == "error: no more; deleted 100 jobs, the same command continues\n"


NOT_OF_ENDED = {"held", "phases"}
NOT_OF_ACTIVE = {"error_reasons", "cancelled"}
"""Filters that no such job passes, or each one."""


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("list", set()), ("rerun", NOT_OF_ENDED), ("cancel", NOT_OF_ACTIVE), ("delete", NOT_OF_ENDED)],
)
def test_a_command_has_each_filter_that_its_jobs_can_pass(name, left_out):
    options = {parameter.name for parameter in commands.jobledger.commands[name].params}
    assert set(JobFilters.__annotations__) & options == set(JobFilters.__annotations__) - left_out


@pytest.mark.parametrize(
    ("command", "done", "make", "option", "field"),
    [
        ("rerun", "rerun", failed, "--unique-key", "unique_key"),
        ("cancel", "cancelled", create, "--request-id", "request_id"),
        ("delete", "deleted", failed, "--concurrency-key", "concurrency_key"),
    ],
)
def test_jobs_are_changed_by_what_names_them(jobledger, client, command, done, make, option, field):
    ours, _ = make(client, 1, **{field: "ours"}), make(client, 1, **{field: "theirs"})
    assert jobledger.ok(command, option, "none", "--yes") == "no job matches\n"
    matched = list(client.list_jobs(**{field: "ours"}))
    assert [job.id for job in matched] == ours
    assert jobledger.ok(command, option, "ours", "--yes") == f"{done} 1 job\n"
    # A script whose variable is unset does not change all others.
    assert jobledger(command, option, "", "--created-before", "2999-01-01", "--yes").returncode == 2
    left = {job.id for job in client.list_jobs(**{field: "theirs"}) if not job.is_terminal}
    assert len(left) == (1 if command == "cancel" else 0)


def test_jobs_are_changed_by_who_held_them_by_their_phase_and_by_their_origin(jobledger, client):
    one, other = create(client, 2)
    for job_id, worker in (one, "w-1"), (other, "w-2"):
        client.start_job(job_id, worker_id=worker)
    assert jobledger.ok("cancel", "--worker", "w-1", "--yes") == "cancelled 1 job\n"
    assert client.get_job(other).cancel_request_time is None
    for job_id in (one, other):
        client.mark_failed(job_id, "no", attempt=1)
    assert jobledger.ok("rerun", "--worker", "w-2", "--yes") == "rerun 1 job\n"
    (again,) = client.list_jobs(origin_job_id=other)
    later = client.create_job("render", delay=3600).id
    assert jobledger.ok("cancel", "--phase", "scheduled", "--yes") == "cancelled 1 job\n"
    assert client.get_job(later).cancelled
    assert client.get_job(again.id).cancel_request_time is None
    assert jobledger("cancel", "--origin", "", "--held", "--yes").returncode == 2
    assert jobledger.ok("cancel", "--origin", other, "--yes") == "cancelled 1 job\n"
    assert jobledger.ok("delete", "--worker", "w-1", "--yes") == "deleted 1 job\n"
    assert {job.id for job in client.list_jobs()} == {other, later, again.id}
