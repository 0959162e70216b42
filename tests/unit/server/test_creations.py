"""Each field of a creation, as the contract has it, is a part of the command and of the job."""

import itertools
from typing import Any

import pytest
from msgspec.structs import asdict

from jobledger.v1.job_service_pb2 import BatchCreateJobsRequest, CreateJobRequest
from jobledger_server.domain.commands import CreateAll
from jobledger_server.domain.decisions import create
from jobledger_server.domain.errors import RequestIdReused
from jobledger_server.domain.job import Instant
from jobledger_server.rpc.jobs import job_requests
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.sql.tables import jobs
from tests.support.creations import FIELDS, OWN, filled, sample

NOW = Instant(10**15)

OF_JOBS = sorted(FIELDS.keys() - {"group", "group_index"})
"""The fields of jobs that are no groups, and that are created alone."""

TEXTS = [name for name, field in FIELDS.items() if field.cpp_type == field.CPPTYPE_STRING]


def without(field: str) -> dict[str, Any]:
    """Return a creation with all fields but this one, and those that exclude it."""
    creation = filled(field, *(["unique_policy"] if field == "unique_key" else []))
    if field == "schedule_time":
        del creation["delay"]
    return creation | ({field: "other"} if field in OWN else {})


@pytest.mark.parametrize("field", OF_JOBS)
def test_a_field_of_a_creation_is_a_part_of_its_command(field: str) -> None:
    less = without(field)
    said = job_requests.create(CreateJobRequest(**less | {field: sample(field)}))
    unsaid = job_requests.create(CreateJobRequest(**less))
    # `silent` alone would say that a value is given, and not which.
    assert asdict(said) | {"silent": 0} != asdict(unsaid) | {"silent": 0}


@pytest.mark.parametrize("field", TEXTS)
def test_a_text_of_a_creation_is_refused_where_its_column_is_too_short(field: str) -> None:
    longest = jobs.c[field].type.length
    creation = without(field)
    job_requests.create(CreateJobRequest(**creation | {field: "x" * longest}))
    for bad in ("x" * (longest + 1), "x\0"):
        with pytest.raises(InvalidRequest) as refused:
            job_requests.create(CreateJobRequest(**creation | {field: bad}))
        assert [name for name, _ in refused.value.violations] == [field]


def test_a_job_of_a_batch_has_the_fields_of_one_that_is_created_alone() -> None:
    one = CreateJobRequest(**filled())
    batch = BatchCreateJobsRequest(user_id=one.user_id, requests=[one])
    assert job_requests.create_all(batch) == CreateAll((job_requests.create(one),))


@pytest.mark.parametrize("field", sorted({*OF_JOBS} - {"user_id", "request_id", "unique_policy"}))
def test_a_request_id_with_another_value_of_any_field_is_refused(field: str) -> None:
    ids = map(str, itertools.count())
    less = without(field)
    first = job_requests.create(CreateJobRequest(**less))
    job = create(None, first, now=NOW, new_id=lambda: next(ids)).job
    other = job_requests.create(CreateJobRequest(**less | {field: sample(field)}))
    with pytest.raises(RequestIdReused):
        create((job, first.parameters), other, now=NOW, new_id=lambda: next(ids))
    assert not create((job, first.parameters), first, now=NOW, new_id=lambda: next(ids)).changed
