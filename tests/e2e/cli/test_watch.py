"""`jobledger watch JOB...`, on a terminal and off it."""

import json
import os
import pty
import signal

import pytest

from jobledger import Client, NewJob
from tests.e2e.cli.terminal import read_to_end

ENDS = {
    "COMPLETED": lambda client, job_id: client.mark_completed(job_id, attempt=1),
    "PARTIAL": lambda client, job_id: client.mark_partial(job_id, attempt=1),
    "FAILED": lambda client, job_id: client.mark_failed(
        job_id, "disk full", reason="NO_DISK", attempt=1
    ),
}


@pytest.fixture
def running(client):
    def running():
        return client.start_job(client.create_job("render").id).id

    return running


def test_each_change_is_a_line_until_the_job_is_terminal(jobledger, client, running):
    job_id = running()
    process = jobledger.start("watch", job_id)
    first = json.loads(process.stdout.readline())
    assert first["job"]["status"] == "PROCESSING"
    client.update_progress(job_id, 50, attempt=1)
    assert json.loads(process.stdout.readline())["job"]["progress"] == 50
    client.mark_completed(job_id, attempt=1)
    out, err = process.communicate(timeout=30)
    last = json.loads(out)
    assert last["job"]["status"] == "COMPLETED"
    assert [step["to_status"] for step in last["transitions"]] == ["COMPLETED"]
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        (["COMPLETED"], 0),
        (["COMPLETED", "PARTIAL"], 3),
        (["PARTIAL", "FAILED", "COMPLETED"], 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst_status(jobledger, client, running, ends, code):
    ids = [running() for _ in ends]
    for job_id, end in zip(ids, ends, strict=True):
        ENDS[end](client, job_id)
    run = jobledger("watch", *ids)
    assert (run.returncode, run.stderr) == (code, "")
    shown = [json.loads(line)["job"]["id"] for line in run.stdout.splitlines()]
    assert sorted(shown) == sorted(ids)


def test_a_job_named_twice_is_watched_once(jobledger, client, running):
    job_id = running()
    client.mark_completed(job_id, attempt=1)
    assert len(jobledger.ok("watch", job_id, job_id).splitlines()) == 1


def on_a_terminal(jobledger, *arguments, width=100, term="xterm-256color"):
    """Run with a terminal as stdout; return the exit code and what was drawn."""
    ours, theirs = pty.openpty()
    jobledger.environment |= {"TERM": term, "COLUMNS": str(width)}
    process = jobledger.start(*arguments, stdout=theirs)
    os.close(theirs)
    drawn = read_to_end(ours)
    _, err = process.communicate(timeout=30)
    assert err == ""
    return process.returncode, drawn.decode()


def test_bars_are_drawn_on_a_terminal(jobledger, client, running):
    ids = [running(), running()]
    client.mark_completed(ids[0], attempt=1)
    client.update_progress(ids[1], 40, attempt=1)
    client.mark_failed(ids[1], "disk [red]full\x1b[2J", reason="NO_DISK", attempt=1)
    code, drawn = on_a_terminal(jobledger, "watch", *ids)
    assert code == 1
    for words in (
        ids[0],
        ids[1],
        "\N{BOX DRAWINGS HEAVY HORIZONTAL}",
        "COMPLETED",
        "FAILED",
        "40 %",
    ):
        assert words in drawn
    # A job's text is shown as it is: neither markup nor control sequences.
    assert "NO_DISK: disk [red]full" in drawn
    assert "\x1b[2J" not in drawn


def test_a_narrow_terminal_shows_the_end_of_an_id_the_percent_and_the_status(
    jobledger, client, running
):
    job_id = running()
    client.update_progress(job_id, 40, attempt=1)
    client.mark_failed(job_id, "disk full", reason="NO_DISK", attempt=1)
    code, drawn = on_a_terminal(jobledger, "watch", job_id, width=40)
    assert code == 1
    assert f"\N{HORIZONTAL ELLIPSIS}{job_id[-12:]}  40 % FAILED" in drawn


def test_json_is_json_on_a_terminal_too(jobledger, client, running):
    job_id = running()
    client.mark_completed(job_id, attempt=1)
    code, drawn = on_a_terminal(jobledger, "watch", "--json", job_id)
    assert code == 0
    assert json.loads(drawn)["job"]["id"] == job_id


def test_a_terminal_that_cannot_draw_gets_lines(jobledger, client, running):
    job_id = running()
    client.mark_completed(job_id, attempt=1)
    code, drawn = on_a_terminal(jobledger, "watch", job_id, term="dumb")
    assert code == 0
    assert json.loads(drawn)["job"]["id"] == job_id


def test_an_interrupt_is_130_and_prints_nothing(jobledger, running):
    process = jobledger.start("watch", running())
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, "", "")


def test_a_watch_exits_quietly_when_its_reader_closes_the_pipe(jobledger, client, running):
    job_id = running()
    process = jobledger.start("watch", job_id)
    process.stdout.readline()
    process.stdout.close()
    client.update_progress(job_id, 50, attempt=1)
    assert process.wait(30) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_list_exits_quietly_when_its_reader_closes_the_pipe(jobledger, client):
    client.create_jobs([NewJob("render")] * 500)  # more than a pipe holds
    process = jobledger.start("list", "--json", "--limit", "0")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_an_outage_is_reported_when_it_starts_and_when_it_is_over(shell, own_server):
    with Client(own_server.target, user_id="ada") as client:
        jobs = [client.start_job(client.create_job("render").id) for _ in range(2)]
        process = shell(own_server.target, "ada").start("watch", *(job.id for job in jobs))
        for _ in jobs:
            process.stdout.readline()
        own_server.kill()
        lost = process.stderr.readline()
        assert lost.startswith(f"note: lost the connection to {own_server.target} (")
        own_server.start()
        assert process.stderr.readline() == f"note: connected to {own_server.target} again\n"
        for job in jobs:
            client.mark_completed(job.id, attempt=1)
        out, err = process.communicate(timeout=30)
    # Once, though there are two watches.
    assert (process.returncode, err) == (0, "")
    assert len(out.splitlines()) == 2
