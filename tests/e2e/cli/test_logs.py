"""`jobledger logs`, and the output of the programs of `jobledger worker exec`."""

import signal
import sys
import uuid


def written(client, *texts, stream=""):
    """Create a job whose worker has written these texts; return it."""
    job = client.start_job(client.create_job("render"), worker_id="w")
    for number, text in enumerate(texts, start=1):
        client.append_output(job, 1, text, stream=stream, number=number)
    return job


def test_logs_prints_what_is_stored_and_ends_while_the_job_runs(jobledger, client):
    job = written(client, "häm\n", "no end of line")
    assert jobledger.ok("logs", job.id) == "häm\nno end of line"
    assert jobledger.ok("logs", job.id, "--since-offset", "5") == "no end of line"
    assert jobledger.ok("logs", job.id, "--last", "4") == "line"
    both = jobledger("logs", job.id, "--last", "4", "--since-offset", "1")
    assert (both.returncode, "not both" in both.stderr) == (2, True)
    missing = jobledger("logs", str(uuid.uuid4()))
    assert (missing.returncode, missing.stdout) == (4, "")


def test_logs_says_which_other_streams_there_are(jobledger, client):
    job = written(client, "a line\n", stream="log")
    run = jobledger("logs", job.id)
    assert (run.returncode, run.stdout) == (0, "")
    assert "--stream log" in run.stderr
    assert jobledger.ok("logs", job.id, "--stream", "log") == "a line\n"


def test_logs_follows_until_the_job_has_ended(jobledger, client):
    job = written(client, "one\n")
    run = jobledger.start("logs", job.id, "--follow")
    assert run.stdout.readline() == "one\n"
    client.append_output(job, 1, "two\n", number=2)
    assert run.stdout.readline() == "two\n"
    client.append_output(job, 1, "three", number=3)
    client.mark_completed(job, attempt=1)
    assert run.communicate() == ("three", "")
    assert run.wait() == 0


def test_a_program_of_exec_writes_what_it_prints(jobledger, client):
    program = (
        "import json, sys\n"
        "print('a line', flush=True)\n"
        "print('of stderr', file=sys.stderr, flush=True)\n"
        "print(json.dumps({'progress': 40}), flush=True)\n"
        "print('the end')\n"
    )
    job_type = f"t{uuid.uuid4().hex[:12]}"
    job = client.create_job(job_type)
    run = jobledger.start("worker", "exec", job_type, "--", sys.executable, "-c", program)
    text = "".join(piece.text for piece in client.output(job))
    run.send_signal(signal.SIGTERM)
    run.communicate()
    assert text == "a line\nof stderr\nthe end\n"
    assert client.get_job(job).progress == 100
