"""Errors as `application/problem+json` (RFC 9457), with the service's own reason and facts."""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2
from starlette.responses import Response

from jobledger.errors import InvalidField, JobledgerError
from jobledger_gateway.metrics import FIGURES

MEDIA_TYPE: Final = "application/problem+json"

# As google.rpc.Code documents them. 499 has no name in HTTP: the caller went away.
_STATUS: Final[Mapping[grpc.StatusCode, int]] = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class HttpProblem(Exception):
    """A request that the gateway itself refuses."""

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.metadata = dict(metadata or {})


def invalid_field(field: str, rule: str) -> InvalidField:
    """Return the error of a field that the gateway cannot read, as the service would word it."""
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=rule)
    return InvalidField(
        f"{field}: {rule}",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_FIELD",
        details=[error_details_pb2.BadRequest(field_violations=[violation])],
    )


def problem_of(error: JobledgerError | HttpProblem) -> dict[str, Any]:
    """Describe an error as the object of a problem document."""
    if isinstance(error, HttpProblem):
        FIGURES.refused[str(error.status)] += 1
        refused = _problem(error.status, error.detail)
        return {**refused, "metadata": error.metadata} if error.metadata else refused
    problem = _problem(_STATUS.get(error.code, 500), str(error))
    if error.reason:
        problem["reason"] = error.reason
    if error.metadata:
        problem["metadata"] = error.metadata
    violations = [
        {"field": each.field, "description": each.description}
        for detail in error.details
        if isinstance(detail, error_details_pb2.BadRequest)
        for each in detail.field_violations
    ]
    if violations:
        problem["violations"] = violations
    return problem


def problem_response(error: JobledgerError | HttpProblem) -> Response:
    """Answer with an error."""
    problem = problem_of(error)
    if isinstance(error, HttpProblem):
        headers = error.headers
    else:
        headers = {}
        if error.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(error.retry_after))
        if problem["status"] == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
    headers["Cache-Control"] = "no-store"
    return Response(
        json.dumps(problem), status_code=problem["status"], headers=headers, media_type=MEDIA_TYPE
    )


def _problem(status: int, detail: str) -> dict[str, Any]:
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Client Closed Request"
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}
