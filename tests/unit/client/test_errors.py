import pickle
from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from jobledger import (
    AccessDenied,
    DeadlineExceeded,
    IllegalTransition,
    InternalError,
    InvalidField,
    JobledgerError,
    JobNotDue,
    JobNotFound,
    LeaseLost,
    LimitExceeded,
    Unauthenticated,
    Unavailable,
    VersionMismatch,
)
from jobledger.errors import BY_REASON, from_rpc_error, from_update_error
from jobledger.v1.error_reason_pb2 import ErrorReason
from jobledger.v1.worker_service_pb2 import UpdateError

REASONS = [
    name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if number != 0
]


class Answer(grpc.RpcError):
    """What a call raises: an error that is a call."""

    def __init__(self, code, words="no", trailers=()):
        self._code, self._words, self._trailers = code, words, trailers

    def code(self):
        return self._code

    def details(self):
        return self._words

    def trailing_metadata(self):
        return self._trailers


def answer(code, *details, words="no", said=None):
    status = status_pb2.Status(code=code.value[0], message=said or words)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    trailers = (("grpc-status-details-bin", status.SerializeToString()),)
    return Answer(code, words, trailers)


def info(reason, domain="jobledger", **metadata):
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def test_every_reason_of_the_contract_has_a_class_of_its_own():
    assert sorted(BY_REASON) == sorted(REASONS)
    assert len(set(BY_REASON.values())) == len(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_the_reason_alone_decides_the_class(reason):
    error = from_rpc_error(answer(grpc.StatusCode.UNKNOWN, info(reason, fact="x")))
    assert type(error) is BY_REASON[reason]
    assert (error.reason, error.metadata, error.message) == (reason, {"fact": "x"}, "no")
    assert error.code is grpc.StatusCode.UNKNOWN


def test_a_job_that_is_not_due_says_when_it_is():
    facts = {"job_id": "j", "schedule_time": "2026-11-26T12:00:00.5Z"}
    error = from_rpc_error(
        answer(grpc.StatusCode.FAILED_PRECONDITION, info("JOB_NOT_DUE", **facts))
    )
    assert error.schedule_time == datetime(2026, 11, 26, 12, 0, 0, 500_000, tzinfo=UTC)
    assert JobNotDue("no").schedule_time is None


def test_a_name_that_is_taken_is_named():
    taken = info("ASSET_NAME_TAKEN", job_id="j", name="a.png")
    assert from_rpc_error(answer(grpc.StatusCode.ALREADY_EXISTS, taken)).name == "a.png"


def test_a_refusal_by_a_key_a_pause_or_a_limit_has_its_facts():
    taken = from_rpc_error(
        answer(
            grpc.StatusCode.ALREADY_EXISTS,
            info("UNIQUE_KEY_TAKEN", unique_key="order-1", job_id="j", index="3"),
        )
    )
    assert (taken.unique_key, taken.job_id, taken.index) == ("order-1", "j", 3)
    paused = from_rpc_error(
        answer(grpc.StatusCode.FAILED_PRECONDITION, info("PAUSED", job_id="j", job_type="render"))
    )
    assert (paused.job_type, paused.concurrency_key) == ("render", "")
    full = from_rpc_error(
        answer(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            info("CONCURRENCY_LIMIT", concurrency_key="stripe", max_running="10"),
            error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1)),
        )
    )
    assert (full.concurrency_key, full.max_running, full.retry_after) == ("stripe", 10, 1.0)
    assert isinstance(full, LimitExceeded)


def test_an_error_keeps_every_message_of_google_rpc():
    kinds = [
        getattr(error_details_pb2, name)
        for name in error_details_pb2.DESCRIPTOR.message_types_by_name
    ]
    error = from_rpc_error(answer(grpc.StatusCode.ABORTED, *(kind() for kind in kinds)))
    assert [type(detail) for detail in error.details] == kinds


def test_the_grpc_error_stays_the_cause():
    original = answer(grpc.StatusCode.NOT_FOUND, info("JOB_NOT_FOUND"))
    assert from_rpc_error(original).__cause__ is original


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, LimitExceeded),
        (grpc.StatusCode.PERMISSION_DENIED, AccessDenied),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
        (grpc.StatusCode.INTERNAL, InternalError),
        (grpc.StatusCode.NOT_FOUND, JobledgerError),
        (grpc.StatusCode.UNKNOWN, JobledgerError),
    ],
)
def test_an_error_without_a_reason_is_classified_by_its_code(code, kind):
    error = from_rpc_error(Answer(code, None, None))
    assert type(error) is kind
    assert (error.code, error.reason, error.details) == (code, "", [])
    assert str(error) == code.name


def test_the_reason_of_another_service_is_ignored():
    foreign = answer(grpc.StatusCode.NOT_FOUND, info("JOB_NOT_FOUND", domain="example.com"))
    assert type(from_rpc_error(foreign)) is JobledgerError


def test_an_unknown_reason_is_kept_and_classified_by_its_code():
    error = from_rpc_error(answer(grpc.StatusCode.UNAVAILABLE, info("LOST_IN_SPACE")))
    assert (type(error), error.reason) == (Unavailable, "LOST_IN_SPACE")


@pytest.mark.parametrize(
    "trailers",
    [
        (("grpc-status-details-bin", b"\xff\xff"),),
        answer(grpc.StatusCode.ABORTED, info("JOB_NOT_FOUND")).trailing_metadata(),
        answer(
            grpc.StatusCode.NOT_FOUND, info("JOB_NOT_FOUND"), said="other words"
        ).trailing_metadata(),
    ],
)
def test_details_that_were_damaged_on_the_way_are_ignored(trailers):
    error = from_rpc_error(Answer(grpc.StatusCode.NOT_FOUND, "no", trailers))
    assert (type(error), error.details) == (JobledgerError, [])


def test_an_invalid_field_lists_every_violation():
    details = error_details_pb2.BadRequest()
    details.field_violations.add(field="job_type", description="is empty")
    details.field_violations.add(field="labels[a]", description="is too long")
    error = from_rpc_error(answer(grpc.StatusCode.INVALID_ARGUMENT, info("INVALID_FIELD"), details))
    assert isinstance(error, InvalidField)
    assert error.violations == [("job_type", "is empty"), ("labels[a]", "is too long")]


def test_metadata_of_an_error_becomes_attributes():
    def read(reason, **metadata):
        return from_rpc_error(answer(grpc.StatusCode.ABORTED, info(reason, **metadata)))

    illegal = read("ILLEGAL_TRANSITION", current="QUEUED", target="FAILED", allowed="A,B")
    assert isinstance(illegal, IllegalTransition)
    assert (illegal.current, illegal.target, illegal.allowed) == ("QUEUED", "FAILED", ("A", "B"))
    assert read("JOB_TERMINAL", allowed="").allowed == ()
    lost, mismatch = read("LEASE_LOST", attempt="3"), read("VERSION_MISMATCH", version="7")
    assert isinstance(lost, LeaseLost)
    assert isinstance(mismatch, VersionMismatch)
    assert (lost.attempt, mismatch.version) == (3, 7)
    assert read("LEASE_LOST").attempt is None
    reused = read("REQUEST_ID_REUSED", index="0"), read("REQUEST_ID_REUSED")
    assert [error.index for error in reused] == [0, None]
    assert read("INTERNAL", correlation_id="abc").correlation_id == "abc"


@pytest.mark.parametrize("reason", REASONS)
def test_an_error_of_a_report_is_that_of_a_call(reason):
    status = answer(grpc.StatusCode.ABORTED, info(reason, attempt="3"))
    one = from_rpc_error(status)
    other = from_update_error(
        UpdateError(
            code=grpc.StatusCode.ABORTED.value[0],
            reason=f"ERROR_REASON_{reason}",
            message=one.message,
            metadata={"attempt": "3"},
        )
    )
    assert type(one) is type(other)
    assert (one.code, one.reason, one.message) == (other.code, other.reason, other.message)
    assert (one.metadata, one.details) == (other.metadata, other.details)


def test_retry_info_is_given_in_seconds():
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    error = from_rpc_error(answer(grpc.StatusCode.UNAVAILABLE, info("UNAVAILABLE"), retry))
    assert error.retry_after == 1.5
    assert from_rpc_error(answer(grpc.StatusCode.UNAVAILABLE)).retry_after is None


def test_errors_survive_pickling_with_their_facts():
    error = from_rpc_error(answer(grpc.StatusCode.NOT_FOUND, info("JOB_NOT_FOUND", job_id="j")))
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, JobNotFound)
    assert (copy.code, copy.metadata, copy.details) == (error.code, {"job_id": "j"}, error.details)
