"""`jobledger watch --all`: lines for programs, until it is stopped."""

import contextlib
import json
import signal
import subprocess
import sys

import grpc

PROCESSING, COMPLETED = "PROCESSING", "COMPLETED"


@contextlib.contextmanager
def following(jobledger, *arguments):
    process = jobledger.start("watch", "--json", *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def line(process):
    return json.loads(process.stdout.readline())


def until_synced(process):
    """Read the lines of a listing; return the ids."""
    ids = []
    while not (shown := line(process))["synced"]:
        ids.append(shown["job"]["id"])
    return ids


def test_the_jobs_are_listed_and_then_each_change_is_a_line(jobledger, client):
    job = client.create_job("render")
    ended = client.start_job(client.create_job("render").id)
    client.mark_completed(ended.id, attempt=1)
    with following(jobledger, "--all") as process:
        assert until_synced(process) == [job.id]
        client.start_job(job.id)
        changed = line(process)
        assert (changed["job"]["status"], changed["deleted"]) == (PROCESSING, False)
        assert [step["to_status"] for step in changed["transitions"]] == [PROCESSING]
        client.delete_job(ended.id)
        gone = line(process)
        assert (gone["job"]["id"], gone["deleted"]) == (ended.id, True)


def test_filters_and_all_users(jobledger, client):
    mine = client.create_job("render", labels={"run": jobledger.user})
    client.create_job("bake", labels={"run": jobledger.user})
    theirs = client.create_job("render", labels={"run": jobledger.user}, user_id="another")
    filters = ("--type", "render", "--label", f"run={jobledger.user}")
    with following(jobledger, "--all", *filters) as process:
        assert until_synced(process) == [mine.id]
    del jobledger.environment["JOBLEDGER_USER"]
    with following(jobledger, "--all-users", *filters) as process:
        assert sorted(until_synced(process)) == sorted([mine.id, theirs.id])


def test_resume_continues_after_the_line_that_was_processed(jobledger, client):
    job = client.create_job("render")
    with following(jobledger, "--all") as process:
        until_synced(process)
        client.start_job(job.id)
        token = line(process)["resume_token"]
    client.mark_completed(job.id, attempt=1)
    with following(jobledger, "--all", "--resume", token) as process:
        missed = line(process)
        assert [step["to_status"] for step in missed["transitions"]] == [COMPLETED]
        assert line(process)["synced"]


def test_a_token_that_is_refused_is_a_note_on_stderr_and_the_jobs_are_listed(shell, fault_server):
    expired = fault_server.rich(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
    fault_server.says(then=fault_server.refuses(expired))
    fault_server.says(
        fault_server.news("1", "a"),
        fault_server.news("2", heartbeat=True),
        fault_server.news("3", synced=True),
        then=fault_server.falls_silent,
    )
    with following(shell(fault_server.target, "ada"), "--all", "--resume", "mine") as process:
        assert line(process)["job"]["id"] == "a"
        assert line(process)["synced"]
        (note,) = [process.stderr.readline()]
        assert note.startswith("note: ")
        assert "RESUME_TOKEN_EXPIRED" in note
    assert [request.resume_token for request in fault_server.requests] == ["mine", ""]


def test_a_signal_stops_it_quietly(jobledger):
    with following(jobledger, "--all") as process:
        until_synced(process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (143, "", "")


def test_watch_all_exits_when_its_reader_closes_the_pipe_of_an_idle_feed(jobledger):
    with following(jobledger, "--all") as process:
        until_synced(process)
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == ""


def test_lines_go_to_a_file_too(jobledger, client, tmp_path):
    job = client.create_job("render")
    lines = tmp_path / "lines"
    with lines.open("w") as file:
        process = jobledger.start("watch", "--all", stdout=file.fileno())
    try:
        while len(written := lines.read_text().splitlines(keepends=True)) < 2:
            assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    first, second = map(json.loads, written)
    assert (first["job"]["id"], second["synced"]) == (job.id, True)


def test_watch_all_needs_no_drawing_library(jobledger):
    program = """
import sys
sys.modules["rich"] = None
from jobledger.cli.main import main
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, "watch", "--all"],
        env=jobledger.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert line(process)["synced"]
    finally:
        process.kill()
        process.communicate()
