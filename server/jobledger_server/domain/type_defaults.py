"""The defaults of a job type, which operators set. They apply where a creation is silent.

They apply at the creation, and the job stores the result: a default that is set or removed later
changes no job. A rerun has what its origin stores.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter

from msgspec import Struct
from msgspec.structs import replace

from jobledger_server.domain.commands import Create
from jobledger_server.domain.job import CONTENT, Job, Micros, Silent


class TypeDefaults(Struct, frozen=True, kw_only=True):
    """The defaults of a job type, by the names of a creation's fields. None is no default.

    A policy is one default: it has all of its four fields or none. A creation cannot say a
    retention, so that of the type always applies.
    """

    max_attempts: int | None = None
    initial_backoff: Micros | None = None
    max_backoff: Micros | None = None
    backoff_multiplier: float | None = None
    queue_timeout: Micros | None = None
    run_timeout: Micros | None = None
    stall_timeout: Micros | None = None
    priority: int | None = None
    retention: Micros | None = None


NO_DEFAULTS = TypeDefaults()
"""The defaults of a type that has none."""

FIELDS: Mapping[Silent, Sequence[str]] = {
    Silent.RETRY_POLICY: (
        "max_attempts",
        "initial_backoff",
        "max_backoff",
        "backoff_multiplier",
    ),
    Silent.QUEUE_TIMEOUT: ("queue_timeout",),
    Silent.RUN_TIMEOUT: ("run_timeout",),
    Silent.STALL_TIMEOUT: ("stall_timeout",),
    Silent.PRIORITY: ("priority",),
}
"""The fields of what a creation may leave unsaid."""


def with_defaults(creation: Create, defaults: TypeDefaults) -> Create:
    """Return the creation with the defaults of its type where it is silent."""
    if defaults is NO_DEFAULTS:
        return creation
    changes = {
        name: value
        for part, names in FIELDS.items()
        if part & creation.silent
        for name in names
        if (value := getattr(defaults, name)) is not None
    }
    return replace(creation, **changes, retention=defaults.retention)


_always_said = attrgetter(*(name for name in CONTENT if name not in TypeDefaults.__struct_fields__))


def says_the_same(job: Job, creation: Create) -> bool:
    """Whether the job's creator said the same in all fields, and left the same unsaid.

    What was left unsaid is not compared: the defaults may have changed since. Nor is the priority
    of a job that was updated.
    """
    unknown = job.silent | Silent.PRIORITY if job.updates else job.silent
    return bool(_always_said(job) == _always_said(creation)) and all(
        getattr(job, name) == getattr(creation, name)
        for part, names in FIELDS.items()
        if not part & unknown
        for name in names
    )
