"""Whether a caller may do what its request names."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from jobledger_server.admission.caller import ALL_CHOICES, Caller, Permissions
from jobledger_server.domain.commands import Create
from jobledger_server.domain.job import Job
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.methods import METHODS, OPERATIONS, Method
from jobledger_server.rpc.owner import owner_of
from jobledger_server.rpc.validation import Checker

EVERYTHING_PERMITTED = Permissions(
    methods=frozenset(METHODS), any_user=frozenset(METHODS), job_types=None, choices=ALL_CHOICES
)
"""What every caller may do without an access file."""


class Unauthenticated(Exception):
    """The caller has no identity, or none that can be verified."""


@dataclass(eq=False)
class AccessDenied(Exception):
    """The caller's rule in the access file does not permit the call.

    Attributes:
        key: The key of the rule that lacks something: `methods`, `users`, `job_types`, `fairness`,
            `max_priority`, `concurrency_keys` or `create_types`.
        value: What it lacks, as the caller named it.
    """

    key: str
    value: str


def check_method(permissions: Permissions, method: Method) -> None:
    """Raise AccessDenied unless the caller may call the method."""
    if method.path not in permissions.methods:
        raise AccessDenied("methods", method.path.rpartition(".")[2])


def check_user(permissions: Permissions, method: Method, request: Any, call: Call) -> None:
    """Raise AccessDenied unless the caller may act for the user of this request."""
    path = method.path
    if path in permissions.any_user or not method.for_users:
        return
    named = path.startswith(OPERATIONS)
    user_id = owner_of(Checker(), call.metadata) if named else request.user_id
    if user_id not in permissions.users and (user_id or method.all_users):
        raise AccessDenied("users", user_id or "*")  # other methods refuse an empty user as invalid


def check_job_types(caller: Caller, job_types: Collection[str]) -> None:
    """Raise AccessDenied unless the caller may claim jobs of these types."""
    allowed = caller.permissions.job_types
    if allowed is not None and (denied := set(job_types) - allowed):
        raise AccessDenied("job_types", min(denied))


def check_creations(caller: Caller, jobs: Iterable[Create | Job]) -> None:
    """Raise AccessDenied unless the caller may create such jobs, or jobs that repeat these."""
    choices = caller.permissions.choices
    if choices is ALL_CHOICES:
        return
    for each in jobs:
        if choices.job_types is not None and each.job_type not in choices.job_types:
            raise AccessDenied("create_types", each.job_type)
        if each.fairness_key not in ("", each.user_id) and not choices.any_tenant:
            raise AccessDenied("fairness", each.fairness_key)
        if each.priority > choices.max_priority:
            raise AccessDenied("max_priority", str(each.priority))
        key = each.concurrency_key
        if key and not choices.may_use(key, each.user_id):
            raise AccessDenied("concurrency_keys", key)
