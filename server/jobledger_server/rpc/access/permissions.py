"""Whether a caller may do what its request names."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobledger_server.admission.caller import ALL_CHOICES, Caller, Permissions
from jobledger_server.domain.commands import Create
from jobledger_server.domain.job import DEFAULT_PRIORITY, Job, Silent
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.methods import METHODS, OPERATIONS, WEBHOOK_SERVICE, Method
from jobledger_server.rpc.owner import owner_of
from jobledger_server.rpc.validation import Checker

EVERYTHING_PERMITTED = Permissions(
    methods=frozenset(METHODS), any_user=frozenset(METHODS), job_types=None, choices=ALL_CHOICES
)
"""What every caller may do without an access file."""


class IdentityFault(StrEnum):
    """What is wrong with an identity. Operators find it in the audit log.

    Callers are not told: it would help whoever tries to forge a token.
    """

    NO_CREDENTIALS = "no_credentials"
    """There is no token, and no certificate."""
    SEVERAL_TOKENS = "several_tokens"
    NO_BEARER_TOKEN = "no_bearer_token"  # noqa: S105
    """The call has an authorization of another kind, or an empty one."""
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105
    """It is no token of the access file, and no JSON Web Token that an issuer may have signed."""
    WRONG_ISSUER = "wrong_issuer"
    UNKNOWN_KEY = "unknown_key"
    WRONG_SIGNATURE = "wrong_signature"
    WRONG_AUDIENCE = "wrong_audience"
    NO_SUBJECT = "no_subject"
    """It has none, or one that is no identity."""
    EXPIRED = "expired"
    NOT_VALID_YET = "not_valid_yet"
    WRONG_CLAIM = "wrong_claim"
    """Another claim that a token needs is missing, or has a wrong type."""
    NO_NAME = "no_name"
    """The certificate has no name that is an identity."""


@dataclass(eq=False)
class Unauthenticated(Exception):
    """The caller has no identity, or none that can be verified.

    Attributes:
        fault: Why, for the audit log alone.
    """

    fault: IdentityFault


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


def may_have_webhooks(permissions: Permissions, user_id: str) -> bool:
    """Whether an identity may create or change webhooks of this user, or of all if it is empty."""
    return any(
        path in permissions.any_user
        or (path in permissions.methods and user_id in permissions.users)
        for path in (
            f"{WEBHOOK_SERVICE}{name}"
            for name in ("CreateWebhook", "UpdateWebhook", "EnableWebhook")
        )
    )


def check_job_types(caller: Caller, job_types: Collection[str]) -> None:
    """Raise AccessDenied unless the caller may claim jobs of these types."""
    allowed = caller.permissions.job_types
    if allowed is not None and (denied := set(job_types) - allowed):
        raise AccessDenied("job_types", min(denied))


def check_priority(caller: Caller, priority: int) -> None:
    """Raise AccessDenied unless the caller may give a job this priority."""
    if priority > caller.permissions.choices.max_priority:
        raise AccessDenied("max_priority", str(priority))


def check_creations(caller: Caller, jobs: Iterable[Create | Job]) -> None:
    """Raise AccessDenied unless the caller may create such jobs, or reruns of these."""
    choices = caller.permissions.choices
    if choices is ALL_CHOICES:
        return
    for each in jobs:
        if choices.job_types is not None and each.job_type not in choices.job_types:
            raise AccessDenied("create_types", each.job_type)
        if each.fairness_key not in ("", each.user_id) and not choices.any_tenant:
            raise AccessDenied("fairness", each.fairness_key)
        # What operators set is no choice of the caller.
        priority = DEFAULT_PRIORITY if each.silent & Silent.PRIORITY else each.priority
        check_priority(caller, priority)
        key = each.concurrency_key
        if key and not choices.may_use(key, each.user_id):
            raise AccessDenied("concurrency_keys", key)
