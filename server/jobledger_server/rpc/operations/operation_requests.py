"""Converts requests of google.longrunning.Operations to commands and queries.

The owner is the one that the metadata names. If it names none, the owner is the only user that the
caller may act for. Raises InvalidRequest.
"""

import re
from typing import TypeAlias

from google.longrunning import operations_pb2

from jobledger_server.domain.commands import Cancel, Delete
from jobledger_server.domain.job import MICROS_PER_SECOND, JobId, JobStatus
from jobledger_server.domain.limits import (
    MAX_FILTER_CHARACTERS,
    MAX_ID_CHARACTERS,
    MAX_TIMEOUT_SECONDS,
)
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.rpc import fields
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.owner import owner_of
from jobledger_server.rpc.validation import Checker
from jobledger_server.store import JobQuery

COLLECTION = "jobs"
"""The collection of ListOperations. An operation's name is `jobs/` and the job's id."""

LONGEST_WAIT = MAX_TIMEOUT_SECONDS
"""The longest `timeout` of WaitOperation in seconds, and the default."""

_SYNTAX = (
    'must be made of done=true or done=false and metadata.job_type="…", each at most once, '
    "joined by AND"
)
_TERM = re.compile(
    r"done\s*=\s*(?P<done>true|false)\Z"
    r'|metadata\.job_type\s*=\s*"(?P<job_type>[^"]*)"\Z'
)
_AND = re.compile(r"\s+AND\s+")


NamedRequest: TypeAlias = (
    operations_pb2.GetOperationRequest
    | operations_pb2.CancelOperationRequest
    | operations_pb2.DeleteOperationRequest
)


def owned_job(request: NamedRequest, call: Call) -> tuple[JobId, str]:
    """Return the job's id and the owner on whose behalf the call is made."""
    with Checker() as check:
        job_id, user_id = _job_id(check, request.name), _owner(check, call)
    return job_id, user_id


def wait(request: operations_pb2.WaitOperationRequest, call: Call) -> tuple[JobId, str, float]:
    """Return the job's id, its owner, and the seconds to wait for a terminal state."""
    with Checker() as check:
        job_id, user_id = _job_id(check, request.name), _owner(check, call)
        timeout = fields.optional_duration(check, request, "timeout", 0, LONGEST_WAIT)
    return job_id, user_id, LONGEST_WAIT if timeout is None else timeout / MICROS_PER_SECOND


def cancel(request: operations_pb2.CancelOperationRequest, call: Call) -> Cancel:
    job_id, user_id = owned_job(request, call)
    return Cancel(job_id=job_id, user_id=user_id)


def delete(request: operations_pb2.DeleteOperationRequest, call: Call) -> Delete:
    job_id, user_id = owned_job(request, call)
    return Delete(job_id=job_id, user_id=user_id)


def query(request: operations_pb2.ListOperationsRequest, call: Call) -> JobQuery:
    with Checker() as check:
        if request.name != COLLECTION:
            check.add("name", f"must be {COLLECTION!r}")
        check.at_least_zero("page_size", request.page_size)
        statuses, job_types = _filter(check, request.filter)
        return JobQuery(user_id=_owner(check, call), statuses=statuses, job_types=job_types)


def _owner(check: Checker, call: Call) -> str:
    return owner_of(check, call.metadata, otherwise=call.caller.permissions.only_user)


def _job_id(check: Checker, name: str) -> JobId:
    collection, _, job_id = name.partition("/")
    if collection != COLLECTION or not job_id or "/" in job_id:
        check.add("name", f"must be '{COLLECTION}/' and the id of a job")
    else:
        check.name("name", name, len(f"{COLLECTION}/") + MAX_ID_CHARACTERS)
    return JobId(job_id)


def _filter(check: Checker, text: str) -> tuple[frozenset[JobStatus], frozenset[str]]:
    """Return the statuses and the job types that a filter matches; empty sets match all."""
    # Cut it first: searching for AND in much white space takes quadratic time.
    text = check.text("filter", text, MAX_FILTER_CHARACTERS)[:MAX_FILTER_CHARACTERS].strip()
    found: dict[str, str] = {}
    for term in _AND.split(text) if text else ():
        match = _TERM.match(term)
        terms = match.groupdict() if match else {}
        given = {field: value for field, value in terms.items() if value is not None}
        if not given or given.keys() & found.keys():
            check.add("filter", _SYNTAX)
            break
        found |= given
    statuses = {"true": TERMINAL, "false": frozenset(JobStatus) - TERMINAL}
    job_types = [check.job_type("filter", found["job_type"])] if "job_type" in found else []
    return statuses.get(found.get("done", ""), frozenset()), frozenset(job_types)
