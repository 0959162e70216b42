"""The caller of a call: who it is, what it may do, and how much.

It is made once for each call and passed on from there. What was handed no caller cannot act.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta, Struct

from jobledger_server.domain.job import DEFAULT_PRIORITY
from jobledger_server.domain.limits import MAX_PRIORITY

MAX_QUOTA = 2**53

_Count = Annotated[int, Meta(gt=0, lt=MAX_QUOTA)]
_Rate = _Count | Annotated[float, Meta(gt=0, lt=MAX_QUOTA)]


class Quotas(Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of an identity, from the access file. None: only what holds for every caller.

    Attributes:
        calls_per_second: Calls of Jobledger's own services. A request or an answer counts as one
            more for each CALL_BYTES.
        updates_per_second: Updates on streams of Work.
        jobs_per_second: Jobs that it creates.
        unfinished_jobs: Jobs that are not terminal, of each user for whom it creates some.
        watches: Open watches, and waits for operations.
        work_streams: Open streams of workers.
        waiting_bytes: Bytes of requests and answers under way, and of changes that wait.
    """

    calls_per_second: _Rate | None = None
    updates_per_second: _Rate | None = None
    jobs_per_second: _Rate | None = None
    unfinished_jobs: _Count | None = None
    watches: _Count | None = None
    work_streams: _Count | None = None
    waiting_bytes: _Count | None = None


NO_QUOTAS = Quotas()

ANY = "*"
USER = "{user}"


class Choices(Struct, frozen=True):
    """What a caller may choose for the jobs that it creates, where that takes from others.

    Attributes:
        any_tenant: Whether a job may have a fairness key other than its owner.
        max_priority: The greatest priority of a job.
        concurrency_keys: The concurrency keys of jobs. USER stands for the owner of the job, ANY
            at the end for the rest of the key.
        job_types: The types of jobs, or None for all.
    """

    any_tenant: bool = False
    max_priority: int = DEFAULT_PRIORITY
    concurrency_keys: Collection[str] = frozenset({ANY})
    job_types: frozenset[str] | None = None

    def may_use(self, key: str, user_id: str) -> bool:
        """Whether a job of this owner may have this concurrency key."""
        return any(
            key.startswith(each[:-1]) if each.endswith(ANY) else key == each.replace(USER, user_id)
            for each in self.concurrency_keys
        )


OWN_CHOICES = Choices()
"""Those of an owner. A concurrency key names what all use, such as an API, so that any may be
used where no rule says otherwise. A type takes only turns of workers that ask for it."""

ALL_CHOICES = Choices(any_tenant=True, max_priority=MAX_PRIORITY)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls.

    Attributes:
        name: `spiffe://DOMAIN/PATH`, `dns:NAME` or `cn:NAME` of a certificate,
            `jwt:ISSUER/SUBJECT`, `token:NAME`, or `watch:USER` of a watch token. Empty for
            others without an access file.
        until: When its proof expires, in seconds since 1970.
        claims: What a JSON Web Token says, else nothing.
        key: The key that verified the token, or None.
        token: The SHA-256 of a token of the access file, else nothing.
    """

    name: str = ""
    until: float = math.inf
    claims: Mapping[str, Any] = field(default_factory=dict)
    key: Any = None
    token: bytes = b""


@dataclass(frozen=True, slots=True)
class WatchScope:
    """The jobs that the holder of a watch token may read: one, or those with some labels.

    Attributes:
        user_id: Their owner.
        job_id: The job, or nothing if the token is for labels.
        labels: Labels that the jobs have.
        output: Whether their output may be read, too.
    """

    user_id: str
    job_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    output: bool = False

    def contains(self, job_id: str, labels: Mapping[str, str]) -> bool:
        """Whether a job of the owner is one of them."""
        return self.job_id in ("", job_id) and self.labels.items() <= labels.items()


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a caller may do: nothing, unless a rule says so.

    Attributes:
        identity: Who it is.
        methods: The paths of the methods that it may call.
        users: The users that it may act for.
        any_user: The paths of the methods that it may call for any user.
        job_types: The types of the jobs that it may work on, or None for all.
        fenced: As a worker it must send the attempt with each command.
        choices: What it may choose for the jobs that it creates.
        quotas: How much it may do.
        scope: The only jobs that it may read, or None for all of its users.
    """

    identity: Identity = Identity()
    methods: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    any_user: frozenset[str] = frozenset()
    job_types: frozenset[str] | None = frozenset()
    fenced: bool = False
    choices: Choices = OWN_CHOICES
    quotas: Quotas = NO_QUOTAS
    scope: WatchScope | None = None

    @property
    def only_user(self) -> str:
        """The user that the caller may act for if that is exactly one, else nothing."""
        return next(iter(self.users)) if len(self.users) == 1 and not self.any_user else ""


NOTHING_PERMITTED = Permissions()


class Caller(Struct, frozen=True, eq=False, gc=False):
    """Makes a call.

    Limits and fair queueing distinguish callers by their connections first, and by the names
    that they give themselves second, because a client without an identity can give itself any
    name.

    Attributes:
        origin: The caller's identity, or its connection if it has no identity.
        name: The owner or worker that its request names, because behind a proxy thousands of
            callers share a connection. It is empty if there is an identity.
        permissions: What it may do.
    """

    origin: str
    name: str = ""
    permissions: Permissions = NOTHING_PERMITTED

    @property
    def key(self) -> tuple[str, str]:
        """What distinguishes it from other callers."""
        return self.origin, self.name

    @property
    def identity(self) -> str:
        """The name of its identity, or nothing."""
        return self.permissions.identity.name

    @property
    def quotas(self) -> Quotas:
        """How much it may do."""
        return self.permissions.quotas


SERVICE = Caller("")
"""The service itself, for instance the reaper and retention. No limit applies to it."""
