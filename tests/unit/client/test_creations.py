"""Each field that a job may be created with, as the contract has it, can be said in Python."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import click
import pytest
from click.testing import CliRunner
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger import Client, Job, JobOptions, NewJob, RetryPolicy, Task, UniquePolicy
from jobledger.cli.commands import create, jobledger
from jobledger.cli.connection import Connection
from jobledger.cli.render import job_card
from jobledger.v1 import job_pb2
from tests.support.creations import FIELDS, sample, sample_of
from tests.unit.client.test_requests import Wire

ARGUMENTS = {"job_type", "parameters"}
"""What a creation says by arguments of their own."""

POLICY = {"max_attempts", "initial_backoff", "max_backoff"}
"""The options of the command that make a `retry_policy`."""

OF_CREATE_GROUP = {"group", "group_index"}
"""What create_job() does not say: create_group() says the one, and the other is within a batch."""

OPTIONS = FIELDS.keys() - {"user_id"} - ARGUMENTS - OF_CREATE_GROUP


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


@dataclass
class Picture:
    name: str


@pytest.mark.parametrize("field", sorted(OPTIONS))
def test_each_call_that_creates_sends_each_option(field: str) -> None:
    task, picture = Task("draw", Picture), Picture("a")
    options: Any = {"request_id": "r", field: value(field)}
    job = NewJob("draw", {"name": "a"}, **options)
    for call in (
        lambda client: client.create_job("draw", {"name": "a"}, **options),
        lambda client: client.submit(task, picture, **options),
    ):
        assert Wire().sent("CreateJob", call) == job.to_proto("ada")
    batch = Wire().sent("BatchCreateJobs", lambda c: c.create_jobs([task.new(picture, **options)]))
    assert list(batch.requests) == [job.to_proto()]


def text(field: str) -> str:
    """Return the sample of a field as the command takes it."""
    found = sample(field)
    match found:
        case Duration():
            return f"{found.seconds}s"
        case Timestamp():
            return found.ToJsonString()
        case Mapping():
            return "=".join(*found.items())
    return str(value(field))


@pytest.mark.parametrize("field", sorted(OPTIONS - {"retry_policy"}))
def test_the_command_sends_each_option(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (option,) = (each for each in create.params if each.name == field)
    is_flag = isinstance(option, click.Option) and option.is_flag
    words = option.opts[:1] if is_flag else [option.opts[0], text(field)]

    def call(client: Client) -> None:
        monkeypatch.setattr(Connection, "open", lambda _: client)
        ran = CliRunner().invoke(jobledger, ["create", "render", *words])
        assert ran.exit_code == 0, ran.output

    assert getattr(Wire().sent("CreateJob", call), field) == sample(field)


def test_each_option_of_a_creation_is_one_of_the_command() -> None:
    of_the_connection = {parameter.name for parameter in jobledger.params}
    named = {parameter.name for parameter in create.params} - of_the_connection
    assert named - {"as_json"} == OPTIONS - {"retry_policy"} | ARGUMENTS | POLICY


@pytest.mark.parametrize("field", sorted(FIELDS.keys() & job_pb2.Job.DESCRIPTOR.fields_by_name))
def test_what_get_prints_has_each_field_that_a_job_shows(field: str) -> None:
    value = sample_of(job_pb2.Job.DESCRIPTOR.fields_by_name[field])
    said = Job.from_proto(job_pb2.Job(**{field: value}))
    assert job_card(said) != job_card(Job.from_proto(job_pb2.Job()))
