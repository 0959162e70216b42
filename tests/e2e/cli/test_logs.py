"""`jobledger logs`: a job's output in a shell."""

import pytest

from jobledger import Job


@pytest.fixture
def job(client) -> Job:
    """Return a job that was started: its attempt is 1."""
    return client.start_job(client.create_job("logs-of-attempts"))


def write(client, job, *texts, stream=""):
    for number, text in enumerate(texts, start=1):
        client.append_output(job, 1, text, stream=stream, number=number)


def test_what_is_stored_is_printed_unchanged_and_the_command_exits(
    jobledger, client, job, tmp_path
):
    data = bytes(range(256)) * 400
    write(client, job, data[: 64 * 1024], data[64 * 1024 :])
    printed = tmp_path / "printed"
    with printed.open("wb+") as file:
        process = jobledger.start("logs", job.id, stdout=file.fileno())
        assert process.communicate(20)[1] == ""
    assert process.returncode == 0
    assert printed.read_bytes() == data


def test_following_prints_what_comes_until_the_job_ends(jobledger, client, job):
    write(client, job, "one\n")
    process = jobledger.start("logs", job.id, "--follow")
    assert process.stdout.readline() == "one\n"
    client.append_output(job, 1, "two\n", number=2)
    assert process.stdout.readline() == "two\n"
    client.mark_completed(job, attempt=1)
    assert process.communicate(20) == ("", "")
    assert process.returncode == 0
    assert jobledger.ok("logs", job.id, "-f") == "one\ntwo\n"


def test_a_stream_a_place_and_a_distance_from_the_end_can_be_chosen(jobledger, client, job):
    write(client, job, "0123", "456789", stream="log")
    assert jobledger.ok("logs", job.id, "--stream", "log") == "0123456789"
    for options in (["--since-offset", "7"], ["--last", "3"]):
        assert jobledger.ok("logs", job.id, "--stream", "log", *options) == "789"
    client.mark_completed(job, attempt=1)
    for options in (["--since-offset", "7"], ["--last", "3"]):
        assert jobledger.ok("logs", job.id, "--stream", "log", "-f", *options) == "789"


def test_the_output_of_several_attempts_is_printed_whole(jobledger, client, job):
    # An answer ends where another attempt begins.
    write(client, job, *["x" * 64 * 1024] * 4)
    client.release_job(job, 1)
    (again,) = client.claim_jobs(["logs-of-attempts"])
    client.append_output(again, again.attempt, "y" * 10, number=1)
    assert jobledger.ok("logs", again.id) == "x" * 256 * 1024 + "y" * 10


@pytest.mark.parametrize("follow", [(), ("-f",)])
def test_what_is_not_stored_any_more_is_said_on_stderr(jobledger, client, job, follow):
    write(client, job, *[bytes([65 + number]) * 64 * 1024 for number in range(26)])
    client.mark_completed(job, attempt=1)
    ran = jobledger("logs", job.id, *follow)
    assert ran.returncode == 0
    assert ran.stdout.endswith("Z" * 64 * 1024)
    assert len(ran.stdout) < 26 * 64 * 1024
    dropped = 26 * 64 * 1024 - len(ran.stdout)
    assert ran.stderr == f"note: what came before byte {dropped} is not stored any more\n"


def test_who_sees_nothing_is_told_of_other_streams(jobledger, client, job):
    write(client, job, "x", stream="log")
    write(client, job, "x", stream="data.csv")
    ran = jobledger("logs", job.id)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr == "note: there are other streams: --stream data.csv, log\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nobody"], 4, "has no job"),
        (["nobody", "-f"], 4, "has no job"),
        (["j", "--since-offset", "1", "--last", "2"], 2, "--since-offset or --last"),
        (["j", "--stream", "a b"], 2, "stream"),
        (["j", "--last", "-1"], 2, "--last"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(jobledger, arguments, code, words):
    ran = jobledger("logs", *arguments)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert ran.stderr.startswith("error: ")
    assert words in ran.stderr


def test_a_job_is_created_to_refuse_output(jobledger, client):
    job_id = jobledger.ok("create", "render", "--refuse-output").strip()
    assert client.get_job(job_id).refuse_output
