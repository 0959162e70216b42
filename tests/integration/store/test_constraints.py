"""What the database itself refuses, even to hand-written SQL on a plain connection."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.support.seeding import PLAIN

JOB_ID = "'00000000-0000-7000-8000-000000000001'"
OTHER_ID = "'00000000-0000-7000-8000-000000000002'"

JOB = {
    **PLAIN,
    "id": JOB_ID,
    "user_id": "'ada'",
    "job_type": "'render'",
    "status": "'PROCESSING'",
    "phase": "0",
    "queue_id": "1",
    "concurrency_key": "''",
    "attempt": "1",
    "deadline": "1",
    "queue_expire_time": "1",
    "create_time": "1",
    "start_time": "1",
    "attempt_time": "1",
    "start_seq": "1",
    "update_time": "1",
    "version": "2",
    "change_seq": "1",
}
ASSET = {
    "id": OTHER_ID,
    "job_id": JOB_ID,
    "asset_type": "'t'",
    "url": "'https://e.example'",
    "storage_path": "''",
    "file_size": "1",
    "create_time": "1",
    "request_id": "''",
    "name": "'a.png'",
    "sha256": "''",
    "etag": "''",
    "attempt": "1",
}
PAYLOAD = {"job_id": JOB_ID, "kind": "1", "content": "'x'"}
ATTEMPT = {
    "job_id": JOB_ID,
    "number": "1",
    "worker_id": "'w'",
    "start_time": "1",
    "progress": "0",
    "end_time": "2",
    "outcome": "'RELEASED'",
}
Run = Callable[..., list[tuple[object, ...]]]


@pytest.fixture
def run(database_url: str) -> Iterator[Run]:
    """Run statements on a connection that was given no settings at all."""

    def on_sqlite(*statements: str) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(Path(database_url.removeprefix("sqlite:///")))
        try:
            with connection:
                for statement in statements:
                    rows = connection.execute(statement).fetchall()
            return rows
        finally:
            connection.close()

    async def on_postgresql(*statements: str) -> list[tuple[object, ...]]:
        for statement in statements:
            rows = await connection.fetch(statement)
        return [tuple(row) for row in rows]

    if database_url.startswith("sqlite"):
        yield on_sqlite
        return
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(database_url))
        yield lambda *statements: runner.run(on_postgresql(*statements))
        runner.run(connection.close())


def insert(table: str, row: dict[str, str], **changed: str) -> str:
    row = {**row, **changed}
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())})"


def refused(run: Run, *statements: str) -> str:
    with pytest.raises((sqlite3.IntegrityError, asyncpg.PostgresError)) as caught:
        run(*statements)
    return str(caught.value)


def test_a_valid_row_is_accepted(run: Run) -> None:
    run(insert("jobs", JOB), insert("assets", ASSET))
    run(insert("payloads", PAYLOAD), insert("attempts", ATTEMPT))
    run(insert("jobs", JOB, id=OTHER_ID, **UNSTARTED, status="'FAILED'", version="3", **FAILED))


UNSTARTED = {"attempt": "0", "start_time": "NULL", "attempt_time": "NULL"}
QUEUED = {**UNSTARTED, "status": "'QUEUED'", "version": "1", "start_seq": "NULL"}
ENDED = {
    "complete_time": "1",
    "end_actor": "'w'",
    "deadline": "NULL",
    "queue_expire_time": "NULL",
    "phase": "NULL",
}

HELD = {"queue_expire_time": "NULL", "lease_expire_time": "1", "phase": "3"}
FAILED = {**ENDED, "error_reason": "'X'", "error_message": "'no'"}

BROKEN_JOBS = [
    ("status", {"status": "'DONE'"}),
    ("status", {"status": "'processing'"}),
    ("progress", {"progress": "101"}),
    ("progress", {"progress": "-1"}),
    ("version", {"version": "0"}),
    ("version", {"version": "1"}),
    ("attempt", {"attempt": "0"}),
    ("attempt", {"attempt": "-1"}),
    ("attempt", {"start_time": "NULL"}),
    ("attempt", {"attempt_time": "NULL"}),
    ("version", {"start_seq": "NULL"}),
    ("version", {**QUEUED, "start_seq": "1"}),
    ("start_time", {**QUEUED, "attempt": "1", "start_time": "1", "attempt_time": "1"}),
    ("start_time", UNSTARTED),
    ("start_time", {**UNSTARTED, **FAILED, "status": "'FAILED'"}),
    (
        "start_time",
        {**UNSTARTED, **ENDED, "status": "'COMPLETED'", "progress": "100", "version": "3"},
    ),
    ("deadline", {"deadline": "NULL"}),
    ("payloads", {"outcome_bytes": "1"}),
    ("payloads", {"parameters_bytes": "-1"}),
    ("payloads", {"checkpoint_bytes": "-1"}),
    ("payloads", {"result": "'x'"}),
    ("assets", {"asset_count": "1"}),
    ("assets", {**QUEUED, "asset_count": "1", "asset_bytes": "1"}),
    ("deleted", {"delete_seq": "1", "delete_time": "1"}),
    ("deleted", {**FAILED, "status": "'FAILED'", "delete_seq": "1"}),
    ("lease", {**QUEUED, **HELD}),
    ("queue", {"queue_expire_time": "NULL"}),
    ("queue", {"lease_expire_time": "1", "phase": "3"}),
    ("attempts", {"max_attempts": "-1"}),
    ("attempts", {"releases": "2"}),
    ("attempts", {"quick_releases": "1"}),
    ("backoff", {"initial_backoff": "0"}),
    ("backoff", {"initial_backoff": "2"}),
    ("backoff", {"backoff_multiplier": "0.5"}),
    ("retry_time", {**HELD, "retry_time": "1"}),
    ("retry_time", {**QUEUED, "retry_time": "1"}),
    ("phase", {"phase": "NULL"}),
    ("phase", {"phase": "4"}),
    ("phase", {"phase": "3"}),
    ("phase", {"phase": "2"}),
    ("phase", {**HELD, "phase": "0"}),
    ("phase", {**FAILED, "status": "'FAILED'", "phase": "0"}),
    ("priority", {"priority": "10"}),
    ("priority", {"priority": "-1"}),
    ("last_error", {"last_error_reason": "'X'"}),
    ("last_error", {"last_error_message": "'x'"}),
    ("last_error", {**QUEUED, "last_error_reason": "'X'", "last_error_message": "'x'"}),
    ("complete_time", {"complete_time": "1"}),
    ("complete_time", {"end_actor": "'w'"}),
    ("complete_time", {"status": "'COMPLETED'", "progress": "100", "deadline": "NULL"}),
    (
        "complete_progress",
        {**ENDED, "status": "'COMPLETED'", "progress": "99"},
    ),
    ("error", {**ENDED, "status": "'FAILED'"}),
    (
        "error",
        {
            **ENDED,
            "status": "'FAILED'",
            "error_reason": "'X'",
            "error_message": "''",
        },
    ),
    ("error", {"error_reason": "'X'", "error_message": "'no'"}),
    ("user_id", {"user_id": "''"}),
    ("job_type", {"job_type": "''"}),
    ("", {"user_id": "NULL"}),
]


def test_a_job_that_breaks_a_rule_is_refused(run: Run, subtests: pytest.Subtests) -> None:
    for constraint, changed in BROKEN_JOBS:
        with subtests.test(constraint, **changed):
            assert constraint in refused(run, insert("jobs", JOB, **changed))


def test_a_job_cannot_be_updated_into_breaking_a_rule(run: Run) -> None:
    run(insert("jobs", JOB))
    assert "progress" in refused(run, "UPDATE jobs SET progress = 101")
    assert "status" in refused(run, "UPDATE jobs SET status = 'LOST'")


def test_two_jobs_cannot_repeat_the_same_one_unless_one_is_deleted(run: Run) -> None:
    repeats = {"origin_job_id": OTHER_ID}
    run(insert("jobs", JOB, **repeats))
    refused(run, insert("jobs", JOB, id=OTHER_ID, **repeats))
    deleted = {**FAILED, "status": "'FAILED'", "delete_seq": "3", "delete_time": "3"}
    run("UPDATE jobs SET " + ", ".join(f"{name} = {value}" for name, value in deleted.items()))
    run(insert("jobs", JOB, id=OTHER_ID, **repeats))


def test_two_active_jobs_of_an_owner_and_type_cannot_share_a_unique_key(run: Run) -> None:
    unique = {"unique_key": "'u'"}
    run(insert("jobs", JOB, **unique))
    refused(run, insert("jobs", JOB, id=OTHER_ID, **unique))
    for number, other in enumerate(({"user_id": "'bob'"}, {"job_type": "'export'"}), start=3):
        run(insert("jobs", JOB, id=JOB_ID[:-2] + f"{number}'", **unique, **other))
    ended = {**FAILED, "status": "'FAILED'"}
    changes = ", ".join(f"{name} = {value}" for name, value in ended.items())
    run(f"UPDATE jobs SET {changes} WHERE id = {JOB_ID}")
    run(insert("jobs", JOB, id=OTHER_ID, **unique))


def test_two_jobs_cannot_share_a_sequence_number_or_a_request_id(run: Run) -> None:
    run(insert("jobs", JOB, request_id="'r'"))
    refused(run, insert("jobs", JOB, id=OTHER_ID, request_id="'r'"))
    run(insert("jobs", JOB, id=OTHER_ID, request_id="'r'", user_id="'bob'"))
    change = {"seq": "1", "job_id": JOB_ID, "user_id": "'ada'"}
    run(insert("changes", change))
    refused(run, insert("changes", change, job_id=OTHER_ID))


def test_an_asset_without_its_job_is_refused(run: Run) -> None:
    refused(run, insert("assets", ASSET))
    run(insert("jobs", JOB), insert("assets", ASSET))
    refused(run, f"UPDATE assets SET job_id = {OTHER_ID}")


def test_two_assets_of_a_job_cannot_share_a_name_unless_it_is_empty(run: Run) -> None:
    run(insert("jobs", JOB), insert("assets", ASSET))
    refused(run, insert("assets", ASSET, id=JOB_ID))
    run("UPDATE assets SET name = ''", insert("assets", ASSET, id=JOB_ID, name="''"))


def test_deleting_a_job_deletes_its_rows_in_other_tables(run: Run) -> None:
    run(insert("jobs", JOB), insert("assets", ASSET))
    run("DELETE FROM jobs")
    assert run("SELECT count(*) FROM assets") == [(0,)]


def test_an_asset_that_breaks_a_rule_is_refused(run: Run, subtests: pytest.Subtests) -> None:
    run(insert("jobs", JOB))
    for changed in (
        {"file_size": "-1"},
        {"asset_type": "''"},
        {"url": "''", "storage_path": "''"},
        {"sha256": "'f'"},
        {"attempt": "0"},
    ):
        with subtests.test(**changed):
            refused(run, insert("assets", ASSET, **changed))


def test_a_second_feed_row_is_refused(run: Run) -> None:
    refused(
        run,
        "INSERT INTO feed (id, epoch, compacted_seq, config_version, database_identity)"
        " VALUES (2, 'x', 0, 0, '')",
    )


def test_a_row_of_a_job_that_breaks_a_rule_is_refused(run: Run, subtests: pytest.Subtests) -> None:
    for table, row, changed in (
        ("payloads", PAYLOAD, {"kind": "0"}),
        ("payloads", PAYLOAD, {"kind": "3"}),
        ("payloads", PAYLOAD, {"content": "''"}),
        ("attempts", ATTEMPT, {"number": "0"}),
        ("attempts", ATTEMPT, {"progress": "101"}),
        ("attempts", ATTEMPT, {"outcome": "'COMPLETED'"}),
        ("attempts", ATTEMPT, {"error_reason": "'X'"}),
        ("attempts", ATTEMPT, {"end_time": "NULL"}),
    ):
        with subtests.test(table, **changed):
            constraint = next(iter(changed)).partition("_")[0]
            assert constraint in refused(run, insert(table, row, **changed))


@pytest.mark.parametrize(("table", "row"), [("payloads", PAYLOAD), ("attempts", ATTEMPT)])
def test_a_row_of_a_job_is_there_once(run: Run, table: str, row: dict[str, str]) -> None:
    run(insert(table, row))
    refused(run, insert(table, row))
