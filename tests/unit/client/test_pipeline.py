"""Which report an acknowledgement belongs to, and what goes on the next stream: no network."""

from concurrent.futures import Future

import grpc
import pytest

from jobledger import AccessDenied, InternalError, Unavailable
from jobledger.core.report_pipeline import Pipeline
from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.job_pb2 import Job

BROKEN = Unavailable("broken", code=grpc.StatusCode.UNAVAILABLE)


class Sender:
    """Puts reports, and counts those that wait."""

    def __init__(self):
        self.left = 0
        self.pipeline = Pipeline(self.leave)

    def leave(self):
        self.left += 1

    def put(self, job_id, **options):
        answer = Future()
        self.pipeline.put(pb.ReportProgressRequest(job_id=job_id), answer, **options)
        return answer

    def taken(self):
        taken = []
        while (request := self.pipeline.take()) is not None:
            taken.append(request.job_id)
        return taken

    def acknowledge(self, *job_ids):
        for job_id in job_ids:
            self.pipeline.acknowledge(pb.ReportProgressResponse(job=Job(id=job_id)))


@pytest.fixture
def sender():
    return Sender()


def test_acknowledgements_go_to_the_oldest_first(sender):
    answers = [sender.put(job_id) for job_id in "abc"]
    assert sender.taken() == ["a", "b", "c"]
    sender.acknowledge("a", "b")
    assert [answer.done() for answer in answers] == [True, True, False]
    assert [answer.result().job.id for answer in answers[:2]] == ["a", "b"]
    assert (sender.left, sender.pipeline.idle) == (2, False)
    sender.acknowledge("c")
    assert (sender.left, sender.pipeline.idle) == (3, True)


def test_what_was_sent_goes_before_what_was_not(sender):
    for job_id in "abc":
        sender.put(job_id)
    assert sender.taken() == ["a", "b", "c"]
    sender.acknowledge("a")
    sender.put("d")
    sender.pipeline.broken(BROKEN)
    assert sender.taken() == ["b", "c", "d"]


def test_a_report_that_was_given_up_after_it_was_sent_keeps_its_place(sender):
    given_up, waiting = sender.put("a"), sender.put("b")
    sender.taken()
    given_up.cancel()
    sender.pipeline.give_up(given_up)
    assert sender.left == 0
    sender.acknowledge("a", "b")
    assert waiting.result().job.id == "b"


def test_a_report_that_was_given_up_is_not_sent_later(sender):
    sent, unsent = sender.put("a"), None
    sender.taken()
    unsent = sender.put("b")
    sender.put("c")
    for answer in (sent, unsent):
        answer.cancel()
        sender.pipeline.give_up(answer)
    assert sender.left == 1
    sender.pipeline.broken(BROKEN)
    assert sender.left == 2
    assert sender.taken() == ["c"]


def test_an_acknowledgement_of_something_else_is_given_to_nobody(sender):
    with pytest.raises(InternalError):
        sender.acknowledge("a")
    answer = sender.put("a")
    sender.taken()
    with pytest.raises(InternalError):
        sender.acknowledge("b")
    assert not answer.done()
    sender.acknowledge("")  # of a report that the server could not read
    assert answer.done()


def test_what_will_not_go_away_is_told_to_each_by_an_error_of_its_own(sender):
    answers = [sender.put(job_id) for job_id in "ab"]
    sender.pipeline.take()
    sender.pipeline.broken(AccessDenied("no", code=grpc.StatusCode.PERMISSION_DENIED))
    errors = [answer.exception() for answer in answers]
    assert [type(error) for error in errors] == [AccessDenied] * 2
    assert errors[0] is not errors[1]
    assert (sender.left, sender.taken()) == (2, [])


def test_a_report_may_be_given_so_many_streams(sender):
    patient, impatient = sender.put("a"), sender.put("b", tries=2)
    for done in (False, True):
        sender.taken()
        sender.pipeline.broken(BROKEN)
        assert (patient.done(), impatient.done()) == (False, done)
    assert impatient.exception().message == "broken"
    assert sender.taken() == ["a"]


def test_pauses_grow_until_something_is_acknowledged(sender):
    sender.put("a")
    pauses = []
    for _ in range(6):
        sender.taken()
        pauses.append(sender.pipeline.broken(BROKEN))
    caps = [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert all(cap / 2 <= pause <= cap for pause, cap in zip(pauses, caps, strict=True))
    sender.taken()
    sender.acknowledge("a")
    assert sender.pipeline.failure is None
    assert sender.pipeline.broken(BROKEN) <= 0.1
