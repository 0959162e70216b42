"""What is hard to carry: all of Unicode, the largest values, 64 bits, more than a page."""

import json
from pathlib import Path

import pytest

from tests.polyglot.ledger import Ledger, basic, job_in, jobs_in, largest, result_in, struct
from tests.polyglot.programs import Jobs

WORDS = (
    "\U0001d518\U0001d52b\U0001d526 \U0010fffd "  # beyond 16 bits
    "\U0001f469\u200d\U0001f467 "  # two joined to one
    "e\u0301 \u1112\u1161\u11ab "  # decomposed; to be left so
    "שלום مرحبا \u202eabc\u202c \ufdfd "  # from right to left, also by force
    "\u2028\u2029 \\ \" ' "  # what JSON and JavaScript treat apart
    "漢字 ß"
)


def test_every_character_arrives_unchanged(
    jobs: Jobs, ledger: Ledger, kind: str, tmp_path: Path
) -> None:
    given = {WORDS: {"in": [WORDS, "tab\t, line\n and \u0001"]}, "": "empty key"}
    file = tmp_path / "\U0001d52d.json"
    file.write_text(json.dumps(given, ensure_ascii=False), "utf-8")
    user = f"{kind} שלום \U0001d518"
    (created,) = jobs.run(
        "create",
        user=user,
        type=kind,
        parameters=file,
        label=[f"words={WORDS}"],
        priority=0,
        fairness_key=f"tenant {WORDS}",
        concurrency_key=f"service {WORDS}",
        unique_key=f"only {WORDS}",
    )
    job = job_in(created)
    assert ledger.get(job).parameters == struct(given)
    assert job == basic(ledger.get(job))
    assert (job.user_id, job.labels["words"]) == (user, WORDS)
    assert (job.priority, job.fairness_key) == (0, f"tenant {WORDS}")
    assert (job.concurrency_key, job.unique_key) == (f"service {WORDS}", f"only {WORDS}")

    jobs.run("work", worker="w👷", type=kind, outcome="partial", message=WORDS, result=file)
    ended = ledger.get(job)
    assert (ended.progress_message, ended.error.message) == (WORDS, WORDS)
    assert (ended.worker_id, ended.result) == ("w👷", struct(given))
    (watched,) = jobs.run("watch", user=user, job=job.id)
    assert job_in(watched) == ended


def test_the_largest_job_is_created_done_watched_and_listed(
    jobs: Jobs, ledger: Ledger, kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "largest.json"
    file.write_text(json.dumps(largest()), "utf-8")
    (created,) = jobs.run("create", user=kind, type=kind, parameters=file)
    job = job_in(created)
    claimed, *_ = jobs.run("work", worker="w", type=kind, result=file)
    assert job_in(claimed).parameters == struct(largest())
    ended = ledger.get(job)
    assert ended.result == struct(largest())
    (watched,) = jobs.run("watch", user=kind, job=job.id)
    assert job_in(watched) == ended
    (page,) = jobs.run("list", user=kind)
    assert jobs_in(page) == [basic(ended)]


def test_a_byte_more_than_the_largest_is_refused(jobs: Jobs, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "larger.json"
    file.write_text(json.dumps({"text": largest()["text"] + "x"}), "utf-8")
    error = jobs.refused("create", user=kind, type=kind, parameters=file)
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert [each["field"] for each in error["field_violations"]] == ["parameters"]


@pytest.mark.parametrize("size", [2**53 + 1, 2**63 - 1])
def test_a_file_size_beyond_a_doubles_precision_is_exact(
    jobs: Jobs, ledger: Ledger, kind: str, size: int
) -> None:
    job = ledger.create(kind, job_type=kind)
    linked = jobs.run("work", worker="w", type=kind, asset_size=size)[2]
    fields = linked["result"]["asset"]
    assert fields.get("file_size", fields.get("fileSize")) == str(size)
    assert [result_in(linked).asset] == ledger.assets(job)
    assert result_in(linked).asset.file_size == size


def test_a_list_of_several_pages_is_read_to_its_end(jobs: Jobs, ledger: Ledger, kind: str) -> None:
    made = [ledger.create(kind) for _ in range(5)]
    pages = jobs.run("list", user=kind, page_size=2)
    assert [event["event"] for event in pages] == ["page"] * 3
    listed = [jobs_in(page) for page in pages]
    assert listed == [[made[4], made[3]], [made[2], made[1]], [made[0]]]


def test_an_empty_list_is_one_empty_page(jobs: Jobs, kind: str) -> None:
    assert jobs.run("list", user=kind) == [{"event": "page", "jobs": []}]
