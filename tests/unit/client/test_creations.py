"""Each field that a job may be created with, as the contract has it, can be said in Python."""

from datetime import UTC

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger import JobOptions, NewJob, RetryPolicy, UniquePolicy
from jobledger.cli.commands import create, jobledger
from tests.support.creations import FIELDS, sample

ARGUMENTS = {"job_type", "parameters"}
"""What a creation says by arguments of their own."""

POLICY = {"max_attempts", "initial_backoff", "max_backoff"}
"""The options of the command that make a `retry_policy`."""

OPTIONS = FIELDS.keys() - {"user_id"} - ARGUMENTS


def value(field: str) -> object:
    """Return the sample of a field as Python has it."""
    found = sample(field)
    match found:
        case Duration():
            return found.ToTimedelta()
        case Timestamp():
            return found.ToDatetime(tzinfo=UTC)
    return {
        "retry_policy": RetryPolicy(max_attempts=7),
        "unique_policy": list(UniquePolicy)[-1],
    }.get(field, found)


def test_each_field_of_a_creation_is_an_option() -> None:
    assert JobOptions.__annotations__.keys() == OPTIONS


@pytest.mark.parametrize("field", sorted(OPTIONS))
def test_an_option_is_in_the_message(field: str) -> None:
    request = NewJob("render", **{field: value(field)}).to_proto()
    if field == "retry_policy":
        assert request.retry_policy.max_attempts == 7
    else:
        assert getattr(request, field) == sample(field)


def test_each_option_of_a_creation_is_one_of_the_command() -> None:
    of_the_connection = {parameter.name for parameter in jobledger.params}
    named = {parameter.name for parameter in create.params} - of_the_connection
    assert named - {"as_json"} == OPTIONS - {"retry_policy"} | ARGUMENTS | POLICY
