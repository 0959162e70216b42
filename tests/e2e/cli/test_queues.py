"""stats, explain, pause, resume and limits."""

import json
import uuid

import pytest

from jobledger import Client, ConcurrencyLimitReached, JobStatus, Paused
from tests.support.access_file import rule, write_access_file
from tests.support.server_process import ServerProcess


@pytest.fixture
def job_type():
    """A type that no other test uses: counts and pauses are of all users."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def key():
    return f"k{uuid.uuid4().hex[:12]}"


def test_create_passes_on_priority_and_keys(jobledger, client, job_type, key):
    keys = ("--fairness-key", "team-a", "--concurrency-key", f"{key}:7", "--unique-key", "order-1")
    created = jobledger.ok("create", job_type, "--priority", "9", *keys).strip()
    job = client.get_job(created)
    assert (job.priority, job.fairness_key) == (9, "team-a")
    assert (job.concurrency_key, job.unique_key) == (f"{key}:7", "order-1")
    shown = dict(line.split(maxsplit=1) for line in jobledger.ok("get", created).splitlines())
    assert (shown["priority"], shown["fairness"]) == ("9", "team-a")
    assert (shown["concurrency"], shown["unique"]) == (f"{key}:7", "order-1")


def test_list_finds_jobs_by_what_names_them(jobledger, job_type, key):
    named = ("--unique-key", key, "--request-id", key, "--concurrency-key", key)
    made = jobledger.ok("create", job_type, *named).strip()
    other = jobledger.ok("create", job_type, "--delay", "1h").strip()

    def listed(*options):
        lines = jobledger.ok("list", "--type", job_type, *options, "--json").splitlines()
        return [json.loads(line)["id"] for line in lines]

    for option in ("--unique-key", "--request-id", "--concurrency-key"):
        assert listed(option, key) == [made]
        assert jobledger("list", option, "").returncode == 2
    assert listed("--phase", "scheduled") == [other]
    assert listed("--phase", "scheduled", "--phase", "ready") == [other, made]
    assert listed("--worker", key) == []
    assert jobledger("list", "--all-users", "--unique-key", key).returncode == 2
    shown = dict(line.split(maxsplit=1) for line in jobledger.ok("get", made).splitlines())
    assert shown["request"] == key


def test_a_second_job_with_a_unique_key_is_refused_or_is_the_first(jobledger, job_type):
    unique = (job_type, "--unique-key", "order-1")
    first = jobledger.ok("create", *unique)
    refused = jobledger("create", *unique)
    assert (refused.returncode, refused.stdout) == (5, "")
    assert first.strip() in refused.stderr
    existing = jobledger("create", *unique, "--unique-policy", "return_existing")
    assert (existing.returncode, existing.stdout) == (0, first)
    assert existing.stderr == f"job {first.strip()} was there before\n"


def test_stats_counts_the_jobs_of_each_type(jobledger, client, job_type):
    jobs = [client.create_job(job_type, priority=priority) for priority in (5, 5, 9)]
    client.start_job(jobs[0].id)
    client.mark_failed(jobs[0].id, "disk full", reason="NO_DISK", attempt=1)
    client.start_job(jobs[1].id)

    (line,) = jobledger.ok("stats", job_type, "--json").splitlines()
    counts = json.loads(line)
    assert (counts["job_type"], counts["ready"], counts["held"]) == (job_type, 1, 1)
    assert counts["oldest_wait"].endswith("s")
    assert [one["priority"] for one in counts["priorities"]] == [9, 5]
    ended = {"status": "FAILED", "reason": "NO_DISK", "count": 1}
    assert counts["ended_last_hour"] == [ended]

    lines = jobledger.ok("stats", job_type).splitlines()
    card = {line[:11].rstrip(): line[13:] for line in lines}
    assert card["type"] == job_type
    assert card["held"] == "1"
    assert card["priority 9"] == "1 ready, 0 blocked, 0 scheduled, 0 held"
    assert card["last hour"] == "1 FAILED NO_DISK"

    head, *rows = jobledger.ok("stats").splitlines()
    (row,) = [row for row in rows if row.startswith(job_type)]
    # The counts stand under their titles.
    assert row[head.index("READY") :].split()[0] == "1"
    assert row[head.index("HELD") :].split()[0] == "1"
    assert row[head.index("FAILED/HOUR") :].split()[0] == "1"
    assert row.endswith("no worker asks for it")


def test_nothing_of_a_paused_type_starts_until_it_is_resumed(jobledger, client, job_type):
    job = client.create_job(job_type)
    said = jobledger.ok("pause", job_type, "--reason", "deploy").strip()
    assert said.startswith(f"type {job_type} is paused since ")
    assert said.endswith(": deploy")
    with pytest.raises(Paused) as refused:
        client.start_job(job.id)
    assert (refused.value.job_type, refused.value.concurrency_key) == (job_type, "")
    assert said in jobledger.ok("explain", job.id).splitlines()
    # A second pause changes nothing.
    again = json.loads(jobledger.ok("pause", job_type, "--reason", "other", "--json"))
    assert (again["job_type"], again["pause"]["reason"]) == (job_type, "deploy")

    assert jobledger.ok("resume", job_type) == f"type {job_type} is not paused\n"
    assert client.start_job(job.id).status is JobStatus.PROCESSING
    resumed = json.loads(jobledger.ok("resume", job_type, "--json"))
    assert resumed == {"job_type": job_type, "pause": None}


def test_nothing_with_a_paused_key_starts_until_it_is_resumed(jobledger, client, job_type, key):
    job = client.create_job(job_type, concurrency_key=f"{key}:7")
    said = jobledger.ok("pause", "--concurrency-key", key).strip()
    assert said.startswith(f"key {key} is paused since ")
    with pytest.raises(Paused) as refused:
        client.start_job(job.id)
    assert refused.value.concurrency_key
    assert said in jobledger.ok("explain", job.id).splitlines()
    assert any(
        row.startswith(key) and said.removeprefix(f"key {key} is ") in row
        for row in jobledger.ok("limits").splitlines()
    )
    assert (
        json.loads(jobledger.ok("pause", "--concurrency-key", key, "--json"))["concurrency_key"]
        == key
    )

    jobledger.ok("resume", "--concurrency-key", key)
    assert client.start_job(job.id).status is JobStatus.PROCESSING


def test_a_limit_is_set_listed_explained_and_removed(jobledger, client, job_type, key):
    runs = client.create_job(job_type, concurrency_key=key)
    waits = client.create_job(job_type, concurrency_key=key)
    client.start_job(runs.id)
    said = jobledger.ok("limits", "set", key, "1")
    assert said == f"limit {key}: at most 1 held, 1 now, 0 blocked\n"
    with pytest.raises(ConcurrencyLimitReached) as refused:
        client.start_job(waits.id)
    assert (refused.value.concurrency_key, refused.value.max_running) == (key, 1)

    lines = jobledger.ok("explain", waits.id).splitlines()
    at = lines.index(f"limit {key}: 1 of 1 held, by these jobs")
    assert lines[at + 1] == f"  {runs.id}"
    explained = json.loads(jobledger.ok("explain", waits.id, "--json"))
    assert explained["job"]["id"] == waits.id
    (limit,) = [one for one in explained["reasons"] if one["kind"] == "CONCURRENCY_LIMIT"]
    assert (limit["running"], limit["holder_job_ids"]) == (1, [runs.id])

    head, *rows = jobledger.ok("limits").splitlines()
    assert head.split() == ["KEY", "LIMIT", "HELD", "BLOCKED", "NOTE"]
    (row,) = [row for row in rows if row.startswith(key)]
    assert row.split()[:3] == [key, "1", "1"]
    listed = [json.loads(line) for line in jobledger.ok("limits", "--json").splitlines()]
    assert [one["max_running"] for one in listed if one["name"] == key] == [1]

    removed = json.loads(jobledger.ok("limits", "remove", key, "--json"))
    assert (removed["name"], removed["max_running"]) == (key, None)
    # It does not say how many are held: without a limit that is not looked up.
    assert jobledger.ok("limits", "remove", key) == f"key {key} has no limit\n"
    assert client.start_job(waits.id).status is JobStatus.PROCESSING


def test_defaults_of_a_type_are_set_listed_and_cleared(jobledger, client, job_type):
    said = jobledger.ok(
        *("types", "set", job_type, "--max-attempts", "5", "--max-backoff", "1m"),
        *("--queue-timeout", "2h", "--run-timeout", "90s", "--stall-timeout", "0.5m"),
        *("--priority", "8", "--retention", "30d"),
    )
    words = (
        "5 attempts after pauses of 1s to 60s, queue timeout 7200s, run timeout 90s,"
        " stall timeout 30s, priority 8, retention 2592000s"
    )
    assert said == f"type {job_type}: {words}\n"
    job = client.create_job(job_type)
    assert (job.priority, job.retry_policy.max_attempts) == (8, 5)
    head, *rows = jobledger.ok("types").splitlines()
    assert head.split() == ["TYPE", "DEFAULTS"]
    assert [" ".join(row.split()[1:]) for row in rows if row.startswith(job_type)] == [words]
    listed = [json.loads(line) for line in jobledger.ok("types", "--json").splitlines()]
    (defaults,) = [one["defaults"] for one in listed if one["job_type"] == job_type]
    assert (defaults["priority"], defaults["run_timeout"]) == (8, "90s")

    once = json.loads(jobledger.ok("types", "set", job_type, "--max-attempts", "1", "--json"))
    assert (once["job_type"], once["defaults"]["priority"]) == (job_type, None)
    assert jobledger.ok("types", "clear", job_type) == f"type {job_type}: no defaults\n"
    assert job_type not in jobledger.ok("types")
    nothing = jobledger("types", "set", job_type)
    assert (nothing.returncode, "jobledger types clear" in nothing.stderr) == (2, True)


def test_explain_says_who_goes_before_and_for_what_a_job_waits(jobledger, client, job_type):
    first = client.create_job(job_type)
    client.create_job(job_type, fairness_key="team-a")
    waits = client.create_job(job_type)
    lines = jobledger.ok("explain", waits.id).splitlines()
    assert f"no worker asks for jobs of type {job_type}" in lines
    assert "1 job of its tenant goes before it; 2 tenants take turns" in lines
    client.start_job(first.id)
    assert jobledger.ok("explain", first.id) == "it does not wait: a worker holds it\n"


@pytest.fixture
def guarded(tmp_path):
    """A server that knows ada, who owns jobs, and ann, an operator; their names are the tokens."""

    file = tmp_path / "access.toml"
    owner = rule("ada", 'roles = ["owner"]\nusers = ["ada"]')
    write_access_file(file, owner + rule("ann", 'roles = ["operator"]'))
    with ServerProcess(tmp_path, arguments=["--access", str(file)]) as server:
        yield server


def test_only_an_operator_counts_pauses_and_limits(shell, guarded):
    ada, ann = shell(guarded.target, "ada"), shell(guarded.target, "ann")
    for who in (ada, ann):
        who.environment["JOBLEDGER_TOKEN"] = who.user
    with Client(guarded.target, user_id="ada", token="ada") as client:
        job = client.create_job("render", concurrency_key="stripe")
    for command in (
        ("stats",),
        ("pause", "render"),
        ("resume", "render"),
        ("pause", "--concurrency-key", "stripe"),
        ("resume", "--concurrency-key", "stripe"),
        ("limits",),
        ("limits", "set", "stripe", "10"),
        ("limits", "remove", "stripe"),
        ("types",),
        ("types", "set", "render", "--priority", "8"),
        ("types", "clear", "render"),
        ("explain", job.id, "--all-users"),
    ):
        refused = ada(*command)
        assert (refused.returncode, refused.stdout) == (7, ""), command
    said = ann.ok("pause", "render", "--reason", "deploy").strip()
    assert said.endswith(" by token:ann: deploy")
    assert said in ann.ok("explain", job.id, "--all-users").splitlines()
    # Its owner is not told by whom.
    assert said.replace(" by token:ann", "") in ada.ok("explain", job.id).splitlines()

    # The header of `top` has the counts of all only where the caller may read them.
    ann.environment["COLUMNS"] = ada.environment["COLUMNS"] = "200"
    assert "0 held  1 ready" in ann.ok("top", "--once", "--all-users")
    assert "1 type paused" in ann.ok("top", "--once", "--all-users")
    assert "0 running  1 queued" in ada.ok("top", "--once")
