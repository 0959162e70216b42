"""Whether a caller may do what its request names."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from jobledger_server.admission.caller import Caller, Permissions
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.methods import METHODS, OPERATIONS, Method
from jobledger_server.rpc.owner import owner_of
from jobledger_server.rpc.validation import Checker

EVERYTHING_PERMITTED = Permissions(
    methods=frozenset(METHODS), any_user=frozenset(METHODS), job_types=None
)
"""What every caller may do without an access file."""


class Unauthenticated(Exception):
    """The caller has no identity, or none that can be verified."""


@dataclass(eq=False)
class AccessDenied(Exception):
    """The caller's rule in the access file does not permit the call.

    Attributes:
        key: The key of the rule that lacks something: `methods`, `users` or `job_types`.
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
