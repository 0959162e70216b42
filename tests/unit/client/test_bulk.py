"""Calls in many steps: what is summed up, and which step is tried again."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo

from jobledger import (
    DeadlineExceeded,
    InternalError,
    InvalidField,
    JobledgerError,
    LimitExceeded,
    Unavailable,
)
from jobledger.core.bulk import LAST_CAP, PATIENCE, Steps
from jobledger.v1.job_service_pb2 import RerunJobsResponse

AWAY = Unavailable("away", code=grpc.StatusCode.UNAVAILABLE)


@pytest.fixture
def steps(clock):
    return Steps(clock)


def step(token="", matched=100, changed=100, first=0):
    sample = [{"id": str(first + number)} for number in range(min(changed, 10))]
    return RerunJobsResponse(
        matched=matched, changed=changed, next_page_token=token, done=not token, sample=sample
    )


def test_the_result_is_the_sum_of_all_steps(steps):
    first = steps.accept(step("a", 100, 7))
    assert (first.matched, first.changed, len(first.sample)) == (100, 7, 7)
    result = steps.accept(step("", 50, 40, first=7))
    assert (result.matched, result.changed) == (150, 47)
    assert [job.id for job in result.sample] == [str(number) for number in range(10)]
    assert result.sample[0].parameters is None


def test_the_next_step_begins_where_the_last_one_that_was_answered_ended(steps):
    assert steps.token == ""
    steps.accept(step("a"))
    steps.pause(AWAY)
    assert steps.token == "a"


def test_the_first_step_fails_like_any_call(steps):
    with pytest.raises(Unavailable):
        steps.pause(AWAY)


@pytest.mark.parametrize(
    "error",
    [
        AWAY,
        DeadlineExceeded("late", code=grpc.StatusCode.DEADLINE_EXCEEDED),
        LimitExceeded(
            "rate",
            code=grpc.StatusCode.RESOURCE_EXHAUSTED,
            details=[RetryInfo(retry_delay=Duration(seconds=1))],
        ),
    ],
)
def test_a_later_step_that_may_pass_is_tried_again_for_a_minute_after_the_last_answer(
    steps, clock, error
):
    for _ in range(2):
        steps.accept(step("a"))
        clock.now += PATIENCE
        assert 0 < steps.pause(error) <= (error.retry_after or 0) + LAST_CAP
    clock.now += 1
    with pytest.raises(type(error)):
        steps.pause(error)


@pytest.mark.parametrize(
    "error",
    [
        InvalidField("no", code=grpc.StatusCode.INVALID_ARGUMENT),
        InternalError("bug", code=grpc.StatusCode.INTERNAL),
        LimitExceeded("no time is named", code=grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_another_error_ends_the_call(steps, error):
    steps.accept(step("a"))
    with pytest.raises(JobledgerError) as raised:
        steps.pause(error)
    assert raised.value is error
