"""The calls that a load must make."""

from collections import Counter

from jobledger.v1 import job_service_pb2
from tests.checker.clients.calls import CALLS, SERVICES, not_made
from tests.checker.history import History
from tests.checker.summary import describe, summarize


def test_each_call_of_each_service_must_be_made() -> None:
    (jobs,) = job_service_pb2.DESCRIPTOR.services_by_name.values()
    assert {service.full_name for service in SERVICES} >= {
        jobs.full_name,
        "jobledger.v1.QueueService",
        "jobledger.v1.WebhookService",
        "jobledger.v1.WorkerService",
    }
    assert {method.name for method in jobs.methods} <= CALLS
    assert not_made(Counter(CALLS - {"RerunJobs"})) == ["RerunJobs"]


def test_a_run_whose_load_left_a_call_out_says_so() -> None:
    history = History(load_ended=1.0)
    history.answered.update(CALLS - {"RerunJobs"})
    summary = summarize(history)
    assert summary.not_made == ["RerunJobs"]
    assert "no client has made: RerunJobs" in describe(summary, {})
