"""Access control: an optional list of callers, identified by their bearer tokens.

Without a list every caller may do everything, as behind a service mesh with rules of its own.
"""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobledger_server.rpc.owner import Metadata, owner_of
from jobledger_server.rpc.validation import Checker, InvalidRequest
from jobledger_server.rpc.work_limits import UNLIMITED, WORK_LIMITS, AccessDenied, WorkLimits

SERVICES = frozenset({"JobService", "WorkerService"})
ANY_USER = "*"

_FOR_ALL_USERS = ("/ListJobs", "/WatchJobs")
"""The methods that are for all users if their requests name none."""

OPERATIONS = "Operations"
"""google.longrunning's service. It counts as JobService, with the owner in the metadata."""


_KEYS = frozenset({"name", "token_sha256", "services", "users", "job_types", "fencing"})


class BadAccessFile(Exception):
    """The access file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What one caller may do.

    Attributes:
        name: The caller's name in the access file.
        services: The services that it may call.
        users: The users that it may act for; '*' means all.
        work: Its limits in WorkerService.
    """

    name: str
    services: frozenset[str]
    users: frozenset[str]
    work: WorkLimits = UNLIMITED

    def check(self, method: str, request: Any, metadata: Metadata) -> None:
        """Raise AccessDenied unless the caller may act for the user of this request."""
        called = _service(method)
        if called == "WorkerService" or ANY_USER in self.users:
            return
        user_id = owner_of(Checker(), metadata) if called == OPERATIONS else request.user_id
        if user_id not in self.users and (user_id or method.endswith(_FOR_ALL_USERS)):
            raise AccessDenied  # other methods refuse an empty user as invalid


class Access:
    """Identifies callers by their tokens. Only the SHA-256 of a token is stored."""

    def __init__(self, callers: dict[bytes, Permissions]) -> None:
        self._callers = callers

    def permissions(self, metadata: Metadata, method: str) -> Permissions:
        """Return what the caller may do, and set WORK_LIMITS for the call.

        Raises AccessDenied unless it may use the service.
        """
        permissions = self._caller(metadata)
        called = _service(method)
        service = "JobService" if called == OPERATIONS else called
        if permissions is None or service not in permissions.services:
            raise AccessDenied
        WORK_LIMITS.set(permissions.work)
        return permissions

    def only_user(self, metadata: Metadata) -> str:
        """Return the user that the caller may act for if that is exactly one, else ''."""
        caller = self._caller(metadata)
        users = caller.users if caller is not None else frozenset[str]()
        return next(iter(users)) if len(users) == 1 and ANY_USER not in users else ""

    def _caller(self, metadata: Metadata) -> Permissions | None:
        for key, value in metadata:
            if key == "authorization" and isinstance(value, str):
                scheme, _, token = value.partition(" ")
                if scheme.lower() == "bearer" and token:
                    # Looked up by its hash, so the time taken reveals nothing about the token.
                    return self._callers.get(hashlib.sha256(token.encode()).digest())
        return None


def _service(method: str) -> str:
    """Return the last part of a service's name."""
    return method.split("/")[1].rpartition(".")[2]


def read_access_file(path: Path) -> Access:
    """Read a TOML file of `[[caller]]` tables. Raises BadAccessFile.

    Each has `name`, `token_sha256` (64 hexadecimal digits), and optionally
    `services` (default: both), `users` (default: none, which is enough for
    WorkerService), and for WorkerService `job_types` (default: all) and `fencing`
    ("required"; default: "optional").
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise BadAccessFile(f"cannot read the access file {path}: {error}") from None
    entries = content.get("caller", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadAccessFile(f"{path}: write [[caller]] above the keys of each caller")
    callers: dict[bytes, Permissions] = {}
    for entry in entries:
        digest, caller = _caller_from(path, entry)
        if digest in callers:
            raise BadAccessFile(f"{path}: {caller.name!r} has the same token as another caller")
        callers[digest] = caller
    if not callers:
        raise BadAccessFile(f"{path} has no [[caller]]")
    return Access(callers)


def _caller_from(path: Path, entry: dict[str, Any]) -> tuple[bytes, Permissions]:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise BadAccessFile(f"{path}: each [[caller]] needs a `name`")
    if unknown := entry.keys() - _KEYS:
        raise BadAccessFile(f"{path}: {name!r} has an unknown key `{min(unknown)}`")
    try:
        digest = bytes.fromhex(entry["token_sha256"])
    except (KeyError, TypeError, ValueError):
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise BadAccessFile(f"{path}: {name!r} needs `token_sha256`, 64 hexadecimal digits")
    if digest == hashlib.sha256().digest():
        raise BadAccessFile(f"{path}: {name!r} has the `token_sha256` of an empty token")
    services = _names(path, name, entry, "services", SERVICES)
    if not services <= SERVICES:
        raise BadAccessFile(f"{path}: {name!r}: services are {', '.join(sorted(SERVICES))}")
    users = _names(path, name, entry, "users", frozenset())
    return digest, Permissions(name, services, users, _work_limits(path, name, entry))


def _work_limits(path: Path, name: str, entry: dict[str, Any]) -> WorkLimits:
    fencing = entry.get("fencing", "optional")
    if fencing not in ("optional", "required"):
        raise BadAccessFile(f"{path}: {name!r}: fencing is 'optional' or 'required'")
    job_types = None
    if "job_types" in entry:
        job_types = _names(path, name, entry, "job_types", frozenset())
        check = Checker()
        if not job_types:
            check.add("job_types", "is empty")
        for job_type in job_types:
            check.job_type("job_types", job_type)
        try:
            check.finish()
        except InvalidRequest:
            raise BadAccessFile(f"{path}: {name!r}: `job_types` must name types of jobs") from None
    return WorkLimits(job_types, fenced=fencing == "required")


def _names(
    path: Path, name: str, entry: dict[str, Any], key: str, default: frozenset[str]
) -> frozenset[str]:
    value = entry.get(key)
    if value is None:
        return default
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadAccessFile(f"{path}: {name!r}: `{key}` must be a list of strings")
    return frozenset(value)
