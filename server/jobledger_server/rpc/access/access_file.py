"""Reads the access file: TOML with `[[caller]]`, `[[issuer]]` and `[[proxy]]` tables.

docs/operate/security.md describes it. Whatever is not understood is an error.
"""

import hashlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobledger_server.admission.caller import Quotas
from jobledger_server.rpc.access.issuers import IssuerSettings
from jobledger_server.rpc.access.policy import Policy, Rule
from jobledger_server.rpc.methods import METHODS, Role, methods_of, path_of
from jobledger_server.rpc.validation import Checker, InvalidRequest

END = "[end]"
"""The last line. What is left of a file that was written in part may be valid TOML, with fewer
rules or quotas."""

ANY = "*"
"""In `users` and `job_types`: all of them."""

_CERTIFICATE_KINDS = ("spiffe://", "dns:", "cn:")
_KINDS = (*_CERTIFICATE_KINDS, "jwt:")


class BadAccessFile(Exception):
    """The access file cannot be used; the message says why."""


def read_access_file(path: Path) -> Policy:
    """Read an access file. Raises BadAccessFile."""
    try:
        text = path.read_text(encoding="utf-8")
        if text.rstrip().rpartition("\n")[2] != END:
            raise BadAccessFile(f"{path} may be cut: its last line is not `{END}`")
        content = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: of a long number or deep lists Python itself says so.
        cause = error.strerror if isinstance(error, OSError) else error
        raise BadAccessFile(f"cannot read the access file {path}: {cause}") from None
    if unknown := content.keys() - {"caller", "issuer", "proxy", "end"}:
        raise BadAccessFile(f"{path} has an unknown key `{min(unknown)}`")
    callers = [_Caller(each) for each in _tables(path, content, "caller", _CALLER_KEYS)]
    if not callers:
        raise BadAccessFile(f"{path} has no [[caller]]")
    rules = [(caller, caller.rule()) for caller in callers]
    identities = _by(callers[0].table, rules, _Caller.identity, "identity")
    return Policy(
        tokens=_by(callers[0].table, rules, _Caller.digest, "token"),
        identities={name: rule for name, rule in identities.items() if not name.endswith(ANY)},
        prefixes=sorted(
            ((name[:-1], rule) for name, rule in identities.items() if name.endswith(ANY)),
            key=lambda prefix: -len(prefix[0]),
        ),
        issuers=_issuers(path, content),
        proxies=frozenset(map(_proxy, _tables(path, content, "proxy", {"identity"}, ""))),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the file, and how errors name it."""

    path: Path
    name: str
    entries: Mapping[str, Any]

    def error(self, words: str) -> BadAccessFile:
        named = f" {self.name!r}" if self.name else ""
        return BadAccessFile(f"{self.path}:{named} {words}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.entries.get(key, default)
        if not isinstance(value, str) or not (value or value == default):
            raise self.error(f"needs `{key}`, a text")
        if not value.isprintable():
            raise self.error(f"`{key}` has characters that cannot be printed")
        return value

    def identity(self) -> str:
        name = self.text("identity")
        if name.startswith("dns:") and name != name.lower():
            # Names of certificates are compared in lower case: no certificate would match this one.
            raise self.error("`identity`: write DNS names in lower case")
        return name

    def texts(self, key: str) -> frozenset[str]:
        value = self.entries.get(key, [])
        # Not empty: an empty user would stand for all users in ListJobs and WatchJobs.
        if not isinstance(value, list) or not all(isinstance(i, str) and i for i in value):
            raise self.error(f"`{key}` must be a list of strings that are not empty")
        return frozenset(value)


def _tables(
    path: Path, content: Mapping[str, Any], kind: str, keys: set[str], name: str = "name"
) -> Sequence[_Table]:
    entries = content.get(kind, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadAccessFile(f"{path}: write [[{kind}]] above the keys of each {kind}")
    tables = []
    for entry in entries:
        named = entry.get(name) if name else ""
        if name and not (isinstance(named, str) and named and named.isprintable()):
            raise BadAccessFile(f"{path}: each [[{kind}]] needs a `name`")
        tables.append(_Table(path, named or "", entry))
        if unknown := entry.keys() - keys:
            raise tables[-1].error(f"has an unknown key `{min(unknown)}`")
    names = [table.name for table in tables if table.name]
    if len(names) > len(set(names)):
        twice = next(each for each in names if names.count(each) > 1)
        raise BadAccessFile(f"{path}: two [[{kind}]] have the name {twice!r}")
    return tables


_CALLER_KEYS = {
    *("name", "token_sha256", "identity", "roles", "methods"),
    *("users", "users_claim", "job_types", "fencing", "quotas"),
}


_RATES = {"calls_per_second", "updates_per_second", "jobs_per_second"}
_COUNTS = {"unfinished_jobs", "watches", "work_streams", "waiting_bytes"}

MAX_QUOTA = 2**53

DEFAULT_WORK_STREAMS = 64
"""Streams of Work that an identity may have open, unless its quotas say otherwise."""


@dataclass(frozen=True, slots=True)
class _Caller:
    table: _Table

    def identity(self) -> str | None:
        """Return the identity that the caller must have, maybe with ANY at its end."""
        if "token_sha256" in self.table.entries or "identity" not in self.table.entries:
            return None
        name = self.table.identity()
        start = name.removesuffix(ANY)
        if not name.startswith(_KINDS) or ANY in start or start in _KINDS[1:]:
            raise self.table.error(
                f"`identity` begins with {', '.join(_KINDS)}, and only its end may be {ANY!r}"
            )
        if name != start and not start.endswith(("/", ":")):
            # `spiffe://example.org/web*` would be `spiffe://example.org/webmaster` too.
            raise self.table.error(f"`identity`: {ANY!r} stands after '/' or ':'")
        return name

    def digest(self) -> bytes | None:
        """Return the SHA-256 of the token that the caller must show."""
        if "identity" in self.table.entries and "token_sha256" not in self.table.entries:
            return None
        if "identity" in self.table.entries:
            raise self.table.error("has `token_sha256` or `identity`, not both")
        try:
            digest = bytes.fromhex(self.table.entries["token_sha256"])
        except (KeyError, TypeError, ValueError):
            digest = b""
        if len(digest) != hashlib.sha256().digest_size:
            raise self.table.error("needs `identity`, or `token_sha256`, 64 hexadecimal digits")
        if digest == hashlib.sha256().digest():
            raise self.table.error("has the `token_sha256` of an empty token")
        return digest

    def rule(self) -> Rule:
        roles = self._roles()
        methods = methods_of(roles) | self._methods()
        if not methods:
            raise self.table.error("needs `roles` or `methods`")
        users, claim = self.table.texts("users"), self.table.text("users_claim", "")
        if claim and not self.table.text("identity", "").startswith("jwt:"):
            raise self.table.error("`users_claim` is for an `identity` that begins with jwt:")
        for_users = {path for path in methods if Role.WORKER not in METHODS[path].roles}
        any_user = methods_of(frozenset({Role.OPERATOR}) & roles)
        if ANY in users:
            any_user |= for_users
        if not for_users <= any_user and not (users or claim):
            raise self.table.error(f"needs `users` or `users_claim`; [{ANY!r}] means all users")
        return Rule(
            self.table.name,
            methods,
            users=users - {ANY},
            any_user=any_user,
            users_claim=claim,
            job_types=self._job_types(works=bool(methods - for_users)),
            fenced=self._fenced(),
            quotas=self._quotas(),
        )

    def _quotas(self) -> Quotas:
        given = self.table.entries.get("quotas", {})
        if not isinstance(given, dict):
            raise self.table.error("`quotas` is a table: [caller.quotas]")
        for key, value in given.items():
            if key not in _RATES | _COUNTS:
                raise self.table.error(f"`quotas` has an unknown key `{key}`")
            allowed = (int, float) if key in _RATES else (int,)
            if type(value) not in allowed or not 0 < value < MAX_QUOTA:
                raise self.table.error(f"`{key}` must be a positive number")
        return Quotas(**{"work_streams": DEFAULT_WORK_STREAMS, **given})

    def _roles(self) -> frozenset[Role]:
        names = self.table.texts("roles")
        if not names <= set(Role):
            raise self.table.error(f"`roles` are {', '.join(Role)}")
        return frozenset(Role(name) for name in names)

    def _methods(self) -> frozenset[str]:
        paths = {name: path_of(name) for name in self.table.texts("methods")}
        if unknown := [name for name, path in paths.items() if path is None]:
            raise self.table.error(f"`methods`: {min(unknown)!r} is none; write JobService/GetJob")
        return frozenset(path for path in paths.values() if path is not None)

    def _fenced(self) -> bool:
        fencing = self.table.text("fencing", "optional")
        if fencing not in ("optional", "required"):
            raise self.table.error("fencing is 'optional' or 'required'")
        return fencing == "required"

    def _job_types(self, *, works: bool) -> frozenset[str] | None:
        job_types = self.table.texts("job_types")
        if works and not job_types:
            raise self.table.error(f"needs `job_types`; [{ANY!r}] means all types")
        check = Checker()
        for job_type in job_types - {ANY}:
            check.job_type("job_types", job_type)
        try:
            check.finish()
        except InvalidRequest:
            raise self.table.error("`job_types` must name types of jobs") from None
        return None if ANY in job_types else job_types


def _by(
    table: _Table,
    rules: Sequence[tuple[_Caller, Rule]],
    key_of: Callable[[_Caller], Any],
    what: str,
) -> dict[Any, Rule]:
    found: dict[Any, Rule] = {}
    for caller, rule in rules:
        key = key_of(caller)
        if key is None:
            continue
        if key in found:
            words = f"{rule.name!r} has the same {what} as {found[key].name!r}"
            raise BadAccessFile(f"{table.path}: {words}")
        found[key] = rule
    return found


def _proxy(table: _Table) -> str:
    name = table.identity()
    if not name.startswith(_CERTIFICATE_KINDS) or name.endswith(ANY):
        kinds = ", ".join(_CERTIFICATE_KINDS)
        raise table.error(f"[[proxy]] has the `identity` of a certificate: {kinds} and a name")
    return name


def _issuers(path: Path, content: Mapping[str, Any]) -> Sequence[IssuerSettings]:
    keys = {"name", "issuer", "audience", "jwks_file", "jwks_url", "jwks_ca_file"}
    issuers = [_issuer(each) for each in _tables(path, content, "issuer", keys)]
    if len({each.issuer for each in issuers}) < len(issuers):
        raise BadAccessFile(f"{path}: two [[issuer]] have the same `issuer`")
    return issuers


def _issuer(table: _Table) -> IssuerSettings:
    if "/" in table.name or table.name.endswith(ANY):
        raise table.error("`name` has no '/' and does not end with '*'")
    audience = table.entries.get("audience")
    audiences = frozenset([audience]) if isinstance(audience, str) else table.texts("audience")
    if not audiences or "" in audiences:
        raise table.error("needs `audience`: what its tokens name the server")
    file, url = table.text("jwks_file", ""), table.text("jwks_url", "")
    if bool(file) == bool(url):
        raise table.error("needs `jwks_file` or `jwks_url`")
    if url:
        _check_url(table, url)
    ca_file = table.text("jwks_ca_file", "")
    if ca_file and not url:
        raise table.error("`jwks_ca_file` is for `jwks_url`")
    folder = table.path.parent
    return IssuerSettings(
        table.name,
        issuer=table.text("issuer"),
        audiences=tuple(sorted(audiences)),
        jwks_file=folder / file if file else None,
        jwks_url=url,
        jwks_ca_file=folder / ca_file if ca_file else None,
    )


def _check_url(table: _Table, url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and parts.hostname and parts.port != 0
    except ValueError:  # of brackets, and of a port
        usable = False
    if not usable:
        raise table.error("`jwks_url` begins with https:// and a host")
    if "@" in parts.netloc:
        # Errors of urllib repeat a part of them, and those are logged.
        raise table.error("`jwks_url` has no user and password")
