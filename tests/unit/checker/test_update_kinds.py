"""The kinds of updates that a load must send, and of which kinds an update is."""

from collections import Counter
from typing import Any

from jobledger.v1 import worker_service_pb2 as pb
from tests.checker.clients.update_kinds import (
    KINDS,
    NEWS,
    NO_NEWS,
    NO_NEWS_BESIDE,
    RENEWAL,
    REPEATED_NUMBER,
    UpdateKinds,
)
from tests.checker.history import History
from tests.checker.summary import describe, summarize


def report(job_id: str = "a", attempt: int = 1, **fields: Any) -> pb.JobUpdate:
    progress = pb.ProgressUpdate(**fields)
    return pb.JobUpdate(job_id=job_id, attempt=attempt, progress=progress)


def kinds_of(*updates: pb.JobUpdate) -> list[set[str]]:
    """Return of which kinds the updates are that one worker sends one by one, without fields."""
    sent, counts = UpdateKinds(), Counter[str]()
    found = [sent.count(pb.WorkRequest(updates=[update]), counts) for update in updates]
    return [{kind for kind in kinds if "." not in kind} for (kinds,) in found]


def test_each_field_of_each_update_is_a_kind() -> None:
    (oneof,) = pb.JobUpdate.DESCRIPTOR.oneofs
    for update in oneof.fields:
        fields = {f"{update.name}.{field.name}" for field in update.message_type.fields}
        assert fields
        assert fields <= KINDS
    assert {"progress.report_number", "finish.retry_delay", "release.delay"} <= KINDS


def test_a_report_is_without_news_if_it_says_what_was_said_in_its_attempt() -> None:
    said = {"progress": 50, "progress_message": "same"}
    assert kinds_of(
        report(**said, report_number=1),
        report(**said, report_number=2),
        report(progress=40, report_number=3),
        report(**said, report_number=3),
        report(**said, report_number=4, checkpoint={}),
        report(**said, report_number=1, attempt=2),
        report(),
    ) == [{NEWS}, {NO_NEWS}, {NO_NEWS}, {REPEATED_NUMBER}, {NEWS}, {NEWS}, {RENEWAL}]


def test_a_report_without_news_is_beside_the_news_of_other_jobs_in_its_message() -> None:
    sent, counts = UpdateKinds(), Counter[str]()
    sent.count(pb.WorkRequest(updates=[report(progress=50, report_number=1)]), counts)
    same = report(progress=50, report_number=2)
    sent.count(pb.WorkRequest(updates=[same, report("a", progress=60, report_number=3)]), counts)
    assert not counts[NO_NEWS_BESIDE]
    again = report(progress=60, report_number=4)
    sent.count(pb.WorkRequest(updates=[again, report("b", progress=1, report_number=1)]), counts)
    assert counts[NO_NEWS_BESIDE] == 1


def test_the_summary_of_a_run_names_the_kinds_that_its_load_did_not_send() -> None:
    history = History(load_ended=1.0, updates=Counter(KINDS - {"release.delay"}))
    summary = summarize(history)
    assert summary.unused == ["release.delay"]
    assert "no worker has sent: release.delay" in describe(summary, {})
