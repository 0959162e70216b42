"""The rule of each method: the roles that may call it.

A method without a rule stops the server at its start.
"""

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What a caller does with jobs."""

    OWNER = "owner"
    """Creates, reads, cancels and deletes the jobs of the users that it may act for."""

    WORKER = "worker"
    """Runs jobs of the types that it may work on."""

    OPERATOR = "operator"
    """Reads, cancels and deletes the jobs of all users."""


JOB_SERVICE = "/jobledger.v1.JobService/"
WORKER_SERVICE = "/jobledger.v1.WorkerService/"
OPERATIONS = "/google.longrunning.Operations/"
"""google.longrunning's service. The owner is in its metadata."""

OWN_METHODS = ("/jobledger.", "/google.longrunning.")
"""Prefixes of the paths of Jobledger's own services, whose methods need rules. All others are
gRPC's, health and reflection, which every caller may use."""

_OWNERS = frozenset({Role.OWNER})
_READERS = frozenset({Role.OWNER, Role.OPERATOR})
_WORKERS = frozenset({Role.WORKER})

RULES: Mapping[str, frozenset[Role]] = {
    f"{JOB_SERVICE}CreateJob": _OWNERS,
    f"{JOB_SERVICE}BatchCreateJobs": _OWNERS,
    f"{JOB_SERVICE}GetJob": _READERS,
    f"{JOB_SERVICE}ListJobs": _READERS,
    f"{JOB_SERVICE}CancelJob": _READERS,
    f"{JOB_SERVICE}DeleteJob": _READERS,
    f"{JOB_SERVICE}ListAssets": _READERS,
    f"{JOB_SERVICE}ListTransitions": _READERS,
    f"{JOB_SERVICE}WatchJob": _READERS,
    f"{JOB_SERVICE}WatchJobs": _READERS,
    f"{OPERATIONS}GetOperation": _READERS,
    f"{OPERATIONS}ListOperations": _READERS,
    f"{OPERATIONS}CancelOperation": _READERS,
    f"{OPERATIONS}DeleteOperation": _READERS,
    f"{OPERATIONS}WaitOperation": _READERS,
    f"{WORKER_SERVICE}ClaimJobs": _WORKERS,
    f"{WORKER_SERVICE}ReleaseJob": _WORKERS,
    f"{WORKER_SERVICE}TransitionJob": _WORKERS,
    f"{WORKER_SERVICE}UpdateProgress": _WORKERS,
    f"{WORKER_SERVICE}Work": _WORKERS,
    f"{WORKER_SERVICE}MarkCompleted": _WORKERS,
    f"{WORKER_SERVICE}MarkPartial": _WORKERS,
    f"{WORKER_SERVICE}MarkFailed": _WORKERS,
    f"{WORKER_SERVICE}CreateAsset": _WORKERS,
}
"""By path."""


def methods_of(roles: frozenset[Role]) -> frozenset[str]:
    """Return the paths of the methods that these roles may call."""
    return frozenset(path for path, allowed in RULES.items() if allowed & roles)


def path_of(method: str) -> str | None:
    """Return the path of a method that is named as `JobService/GetJob`, or None."""
    found = [path for path in RULES if path.endswith((f".{method}", f"/{method}"))]
    return found[0] if len(found) == 1 and "/" in method else None
