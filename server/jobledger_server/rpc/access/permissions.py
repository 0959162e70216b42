"""A caller's identity, and what it may do."""

import math
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from jobledger_server.admission.quotas import NO_QUOTAS, Quotas
from jobledger_server.rpc.access.key_set import Key
from jobledger_server.rpc.access.methods import OPERATIONS, WORKER_SERVICE
from jobledger_server.rpc.access.work_limits import UNLIMITED, WorkLimits
from jobledger_server.rpc.owner import Metadata, owner_of
from jobledger_server.rpc.validation import Checker

MAX_IDENTITY_CHARACTERS = 512

_FOR_ALL_USERS = ("/ListJobs", "/WatchJobs")
"""The methods that are for all users if their requests name none."""


class Unauthenticated(Exception):
    """The caller has no identity, or none that can be verified."""


class AccessDenied(Exception):
    """The caller may not make this call."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls.

    Attributes:
        name: `spiffe://DOMAIN/PATH`, `dns:NAME` or `cn:NAME` of a certificate,
            `jwt:ISSUER/SUBJECT`, or `token:NAME`.
        until: When its proof expires, in seconds since 1970.
        claims: What a JSON Web Token says, else nothing.
        key: The key that verified it, or None.
        token: The SHA-256 of a token of the access file, else nothing.
    """

    name: str
    until: float = math.inf
    claims: Mapping[str, Any] = field(default_factory=dict)
    key: Key | None = None
    token: bytes = b""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What one caller may do.

    Attributes:
        identity: Who it is.
        methods: The paths of the methods that it may call.
        users: The users that it may act for.
        any_user: The paths of the methods that it may call for any user.
        work: Its limits in WorkerService.
        quotas: How much it may do.
    """

    identity: Identity
    methods: frozenset[str]
    users: frozenset[str] = frozenset()
    any_user: frozenset[str] = frozenset()
    work: WorkLimits = UNLIMITED
    quotas: Quotas = NO_QUOTAS

    @property
    def only_user(self) -> str:
        """The user that the caller may act for if that is exactly one, else nothing."""
        return next(iter(self.users)) if len(self.users) == 1 and not self.any_user else ""

    def check(self, method: str, request: Any, metadata: Metadata) -> None:
        """Raise AccessDenied unless the caller may act for the user of this request."""
        if method in self.any_user or method.startswith(WORKER_SERVICE):
            return
        named = method.startswith(OPERATIONS)
        user_id = owner_of(Checker(), metadata) if named else request.user_id
        if user_id not in self.users and (user_id or method.endswith(_FOR_ALL_USERS)):
            raise AccessDenied  # other methods refuse an empty user as invalid


PERMISSIONS: ContextVar[Permissions | None] = ContextVar("permissions", default=None)
"""What the caller of the current task's call may do; None without an access file."""


def work_limits() -> WorkLimits:
    """Return the limits in WorkerService of the current call's caller."""
    permissions = PERMISSIONS.get()
    return UNLIMITED if permissions is None else permissions.work
