"""What the commands print, for eyes and for scripts."""

import dataclasses
import json
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest

from jobledger import Asset, Job, JobError, RetryPolicy
from jobledger.v1.job_pb2 import Job as Proto

PROGRAM = Path(sys.executable).with_name("jobledger")


@pytest.fixture
def done(client):
    job = client.create_job("render", {"scene": "castle"}, labels={"team": "a"})
    client.start_job(job.id, worker_id="worker-1")
    assets = [Asset(asset_type="image/png", url="https://example.com/a.png", file_size=7)]
    return client.mark_completed(job.id, {"frames": 240}, assets=assets, attempt=1)


def test_create_prints_nothing_but_the_id(jobledger, client):
    out = jobledger.ok("create", "render", "--parameters", '{"a": [1, null]}', "--label", "k=v=w")
    job = client.get_job(out.strip())
    assert (job.job_type, dict(job.labels)) == ("render", {"k": "v=w"})
    assert list(job.parameters["a"]) == [1, None]


def test_update_changes_what_is_given(jobledger, client):
    job_type = f"t{uuid.uuid4().hex[:12]}"
    job = client.create_job(job_type, delay=3600)
    assert jobledger.ok("update", job.id, "--priority", "9") == f"updated {job.id}\n"
    due = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")
    later = ("--at", due, "--expected-version", "2")
    (line,) = jobledger.ok("update", job.id, *later, "--json").splitlines()
    shown = json.loads(line)
    assert (shown["priority"], shown["schedule_time"]) == (9, due.replace("+00:00", ".000000Z"))
    assert jobledger("update", job.id, "--priority", "1", "--expected-version", "2").returncode == 5
    jobledger.ok("update", job.id, "--now")
    assert [each.id for each in client.claim_jobs([job_type])] == [job.id]
    refused = jobledger("update", job.id, "--priority", "1")
    assert refused.returncode == 5
    assert "once it was started" in refused.stderr
    for wrong in ((), ("--now", "--at", "2027-01-01"), ("--priority", "10")):
        assert jobledger("update", job.id, *wrong).returncode == 2


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_create_reads_parameters_from_elsewhere(jobledger, client, tmp_path, source):
    text = '{"city": "Zürich"}'
    file = tmp_path / "parameters.json"
    file.write_text(text, encoding="utf-8")
    given = f"@{file}" if source == "file" else "-"
    out = jobledger.ok("create", "render", "--parameters", given, given=text)
    assert client.get_job(out.strip()).parameters["city"] == "Zürich"


def test_a_time_span_is_shown_in_seconds(jobledger, client):
    job = json.loads(jobledger.ok("create", "render", "--stall-timeout", "1.5m", "--json"))
    assert job["stall_timeout"] == "90s"
    assert client.get_job(job["id"]).stall_timeout == timedelta(seconds=90)


def test_get_shows_the_fields_that_are_set(jobledger, done):
    lines = dict(line.split(maxsplit=1) for line in jobledger.ok("get", done.id).splitlines())
    assert lines["id"] == done.id
    assert lines["status"] == "COMPLETED"
    assert lines["progress"] == "100 %"
    assert lines["labels"] == "team=a"
    assert lines["worker"] == "worker-1"
    assert json.loads(lines["parameters"]) == {"scene": "castle"}
    assert lines["result"] == '{"frames": 240}'
    assert "error" not in lines


def test_json_has_the_fields_of_the_job_in_their_order(jobledger, client):
    job = client.create_job(
        "render", {"size": 7, "b": {"z": 1.5, "a": [2]}}, labels={"team": "a", "city": "Zürich"}
    )
    (line,) = jobledger.ok("get", job.id, "--json").splitlines()
    shown = json.loads(line)
    assert list(shown) == [field.name for field in dataclasses.fields(Job)]
    assert set(shown) == {*Proto.DESCRIPTOR.fields_by_name, "existing"}
    assert (shown["id"], shown["job_type"], shown["status"]) == (job.id, "render", "QUEUED")
    assert (shown["progress"], shown["version"], shown["result"]) == (0, 1, None)
    # Keys in a stable order; whole numbers are integers.
    assert '"parameters": {"b": {"a": [2], "z": 1.5}, "size": 7}' in line
    assert '"labels": {"city": "Z\\u00fcrich", "team": "a"}' in line


def test_list_is_aligned_and_newest_first(jobledger, client):
    ids = [client.create_job("render").id for _ in range(3)]
    head, *rows = jobledger.ok("list").splitlines()
    assert head.split() == ["ID", "STATUS", "PROGRESS", "CREATED", "TYPE", "REASON"]
    assert [row.split()[0] for row in rows] == ids[::-1]
    assert {row.index("QUEUED") for row in rows} == {head.index("STATUS")}
    assert {row.index("render") for row in rows} == {head.index("TYPE")}


def test_list_has_filters_and_a_limit(jobledger, client):
    one, two, three = (client.create_job(kind, labels={"n": kind}).id for kind in ("a", "b", "b"))
    client.start_job(one)

    def lines(*options):
        out = jobledger.ok("list", "--json", *options)
        return [json.loads(line)["id"] for line in out.splitlines()]

    assert lines("--status", "processing") == [one]
    assert lines("--status", "QUEUED", "--status", "PROCESSING", "--limit", "0") == [
        three,
        two,
        one,
    ]
    assert lines("--type", "b") == [three, two]
    assert lines("--type", "a", "--type", "b", "--limit", "2") == [three, two]
    assert lines("--label", "n=a") == [one]


def test_an_empty_list_is_its_header(jobledger, client):
    job = client.create_job("render")
    (header,) = jobledger.ok("list", "--type", "bake").splitlines()
    assert header.split() == ["ID", "STATUS", "PROGRESS", "CREATED", "TYPE", "REASON"]
    for command in ("transitions", "attempts", "assets"):
        assert len(jobledger.ok(command, job.id).splitlines()) == 1
        assert jobledger.ok(command, job.id, "--json") == ""


def test_a_list_of_all_users_names_them(jobledger, client):
    labels = {"run": jobledger.user}
    made = [client.create_job("render", labels=labels, user_id=user) for user in ("ada", "bob-2")]
    del jobledger.environment["JOBLEDGER_USER"]
    listed = jobledger.ok("list", "--all-users", "--label", f"run={jobledger.user}")
    head, *rows = [line.split() for line in listed.splitlines()]
    assert head[-3:] == ["TYPE", "USER", "REASON"]
    assert [[row[0], *row[-2:]] for row in rows] == [
        [job.id, "render", job.user_id] for job in reversed(made)
    ]


def test_transitions_are_listed_oldest_first(jobledger, done):
    head, *rows = jobledger.ok("transitions", done.id).splitlines()
    assert head.split() == ["TIME", "FROM", "TO", "VERSION", "ATTEMPT", "ACTOR", "REASON"]
    assert [row.split()[1:3] for row in rows] == [
        ["QUEUED", "PROCESSING"],
        ["PROCESSING", "COMPLETED"],
    ]
    out = jobledger.ok("transitions", done.id, "--json")
    steps = [json.loads(line)["to_status"] for line in out.splitlines()]
    assert steps == ["PROCESSING", "COMPLETED"]


def waiting(client):
    """Make a job whose first attempt was released."""
    job_type = f"t-{uuid.uuid4()}"
    client.create_job(job_type, {"scene": "castle"})
    (job,) = client.claim_jobs([job_type], worker_id="worker-1")
    client.update_progress(job.id, 40, attempt=1)
    return client.release_job(job.id, 1)


def test_create_sets_the_retry_policy(jobledger, client):
    options = ("--max-attempts", "5", "--initial-backoff", "0.5s", "--max-backoff", "1h")
    job = client.get_job(jobledger.ok("create", "render", *options).strip())
    assert job.retry_policy == RetryPolicy(
        max_attempts=5,
        initial_backoff=timedelta(seconds=0.5),
        max_backoff=timedelta(hours=1),
        backoff_multiplier=2,
    )
    card = dict(line.split(maxsplit=1) for line in jobledger.ok("get", job.id).splitlines())
    assert card["retries"] == "5 attempts in all, after pauses of 0.5s to 3600s"


def test_get_shows_the_time_limits_of_a_job_and_how_long_it_is_kept(jobledger, client):
    client.admin.set_job_type_defaults("render", retention=timedelta(hours=2))
    limits = ("--queue-timeout", "5m", "--run-timeout", "1h", "--stall-timeout", "90s")
    job = client.get_job(jobledger.ok("create", "render", *limits).strip())

    def card():
        lines = jobledger.ok("get", job.id).splitlines()
        return dict(map(str.strip, line.split("  ", 1)) for line in lines)

    waiting = card()
    assert waiting["queue limit"] == f"until {job.queue_expire_time:%Y-%m-%dT%H:%M:%SZ}"
    assert waiting["stall limit"] == "90s without progress"
    assert waiting["kept for"] == "7200s after its end"
    job = client.start_job(job.id)
    assert card()["run limit"] == f"until {job.run_expire_time:%Y-%m-%dT%H:%M:%SZ}"


def test_a_job_for_later_is_scheduled_until_then(jobledger, client):
    before = datetime.now(UTC)
    noon = f"{before + timedelta(days=30):%Y-%m-%d}T12:00"
    at = client.get_job(jobledger.ok("create", "render", "--at", f"{noon}+01:00").strip())
    assert at.schedule_time == datetime.fromisoformat(f"{noon}+01:00")
    later = client.get_job(jobledger.ok("create", "render", "--delay", "2h").strip())
    assert later.schedule_time - later.create_time == timedelta(hours=2)
    due = client.get_job(jobledger.ok("create", "render", "--at", "2020-01-01").strip())
    card = dict(line.split(maxsplit=1) for line in jobledger.ok("get", at.id).splitlines())
    until = noon.replace("T12:00", "T11:00:00Z")
    assert (card["status"], card["scheduled"]) == (f"SCHEDULED  until {until}", until)
    states = {row.split()[0]: row.split()[1] for row in jobledger.ok("list").splitlines()}
    assert [states[job.id] for job in (at, later, due)] == ["SCHEDULED", "SCHEDULED", "QUEUED"]
    assert json.loads(jobledger.ok("get", at.id, "--json"))["status"] == "QUEUED"


def test_a_job_that_pauses_shows_until_when_and_why_and_where_it_goes_on(jobledger, client):
    job = client.create_job("render", retry_policy=RetryPolicy(max_attempts=3))
    client.start_job(job.id)
    client.update_progress(job.id, 40, checkpoint={"frame": 96}, attempt=1)
    error = JobError("no answer", reason="TIMEOUT")
    paused = client.mark_failed(job.id, error, attempt=1, retryable=True, retry_delay=3600)
    until = f"until {paused.schedule_time:%Y-%m-%dT%H:%M:%SZ}"
    card = dict(
        re.split("  +", line, maxsplit=1) for line in jobledger.ok("get", job.id).splitlines()
    )
    assert card["status"] == f"WAITING FOR RETRY  {until}"
    assert card["last error"] == "TIMEOUT: no answer"
    assert json.loads(card["checkpoint"]) == {"frame": 96}
    (_, row) = jobledger.ok("list", "--not-held").splitlines()
    assert row.endswith(f"{until}  TIMEOUT")
    assert jobledger.ok("list", "--held", "--json") == ""


def test_a_list_says_why_jobs_failed_and_finds_them_by_that(jobledger, client):
    reasons = ("DISK_FULL", None, "OTHER")
    jobs = [client.create_job("render") for _ in reasons]
    for job, reason in zip(jobs, reasons, strict=True):
        client.mark_failed(client.start_job(job.id).id, "no", reason=reason, attempt=1)
    _, *rows = jobledger.ok("list").splitlines()
    assert [row.partition("render")[2].strip() for row in rows] == [
        "OTHER",
        "UNKNOWN",
        "DISK_FULL",
    ]

    def ids(*options):
        out = jobledger.ok("list", "--json", *options)
        return [json.loads(line)["id"] for line in out.splitlines()]

    assert ids("--reason", "DISK_FULL") == [jobs[0].id]
    assert ids("--reason", "DISK_FULL", "--reason", "OTHER") == [jobs[2].id, jobs[0].id]
    again = client.rerun_job(jobs[0].id)
    assert ids("--origin", jobs[0].id) == [again.id]
    assert ids("--not-held") == [again.id]
    assert f"origin       {jobs[0].id}" in jobledger.ok("get", again.id).splitlines()


def test_attempts_are_listed_with_how_they_ended(jobledger, client):
    job = waiting(client)
    client.claim_jobs([job.job_type], worker_id="worker-2")
    head, *rows = jobledger.ok("attempts", job.id).splitlines()
    titles = ["ATTEMPT", "STARTED", "ENDED", "OUTCOME", "PROGRESS", "WORKER", "ERROR"]
    assert head.split() == titles
    assert [row[head.index("OUTCOME") :].split() for row in rows] == [
        ["RELEASED", "40", "%", "worker-1"],
        ["RUNNING", "0", "%", "worker-2"],
    ]
    client.mark_failed(job.id, "disk full\n/dev/sda1", reason="NO_DISK", attempt=2)
    last = jobledger.ok("attempts", job.id).splitlines()[-1]
    assert last[head.index("ERROR") :] == "NO_DISK: disk full /dev/sda1"
    out = jobledger.ok("attempts", job.id, "--json")
    ends = [(each["number"], each["outcome"]) for each in map(json.loads, out.splitlines())]
    assert ends == [(1, "RELEASED"), (2, "FAILED")]


def test_assets_are_listed_with_their_names_and_urls(jobledger, done):
    head, row = jobledger.ok("assets", done.id).splitlines()
    assert head.split() == ["ID", "NAME", "SIZE", "TYPE", "WHERE"]
    assert row.split()[1:] == ["a.png", "7", "image/png", "https://example.com/a.png"]
    assert json.loads(jobledger.ok("assets", done.id, "--json"))["file_size"] == 7


def test_cancel_prints_the_resulting_state(jobledger, client, done):
    queued, running = client.create_job("render"), client.create_job("render")
    client.start_job(running.id)
    assert jobledger.ok("cancel", queued.id) == f"cancelled {queued.id}\n"
    out = jobledger.ok("cancel", running.id, "--reason", "too late")
    assert out == f"cancelling {running.id}\n"
    assert client.get_job(running.id).cancel_reason == "too late"
    assert jobledger.ok("cancel", done.id) == f"already COMPLETED {done.id}\n"
    assert json.loads(jobledger.ok("cancel", "--json", queued.id))["id"] == queued.id


def test_delete_says_what_it_did(jobledger, done):
    assert jobledger.ok("delete", done.id) == f"deleted {done.id}\n"
    assert jobledger("get", done.id).returncode == 4


def test_a_jobs_text_cannot_control_the_terminal(jobledger, client):
    job = client.start_job(client.create_job("render").id)
    client.mark_failed(job.id, "red \x1b[31m alert", reason="ALARM", attempt=1)
    assert "\x1b" not in jobledger.ok("get", job.id)


def test_a_character_that_the_output_cannot_encode_is_no_failure(jobledger, client):
    job = client.start_job(client.create_job("render").id)
    client.update_progress(job.id, 1, progress_message="Zürich", attempt=1)
    run = subprocess.run(
        [PROGRAM, "get", job.id],
        env={**jobledger.environment, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Z\\xfcrich" in run.stdout


def test_help_lists_the_exit_codes(jobledger):
    out = jobledger.ok("--help")
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 70, 74, 130, 141, 143):
        assert f"\n    {code:>3}  " in out


def test_the_version_is_the_distributions(jobledger):
    assert jobledger.ok("--version").split()[-1] == version("jobledger")


def test_the_version_is_printed_without_loading_what_calls_need(jobledger):
    imports = [sys.executable, "-X", "importtime", "-m", "jobledger", "--version"]
    run = subprocess.run(imports, capture_output=True, text=True, check=True)
    assert run.stdout == jobledger.ok("--timeout", "1", "--version")
    assert "importlib.metadata" in run.stderr
    assert not re.search(r"\b(grpc|click)$", run.stderr, re.MULTILINE)
