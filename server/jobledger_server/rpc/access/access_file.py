"""Reads the access file: TOML with `[[caller]]`, `[[issuer]]` and `[[proxy]]` tables.

docs/operate/security.md describes it. Whatever is not understood is an error.
"""

import hashlib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import replace

from jobledger_server.admission.caller import (
    ALL_CHOICES,
    ANY,
    NO_QUOTAS,
    OWN_CHOICES,
    USER,
    Choices,
    Permissions,
    Quotas,
)
from jobledger_server.domain.limits import MAX_JOB_TYPE_CHARACTERS, MAX_PRIORITY
from jobledger_server.rpc.access.issuers import IssuerSettings
from jobledger_server.rpc.access.policy import Policy, Rule
from jobledger_server.rpc.methods import METHODS, Role, methods_of, path_of
from jobledger_server.rpc.validation import JOB_TYPE

END = "[end]"
"""The last line. What is left of a file that was written in part may be valid TOML, with fewer
rules or quotas."""

DEFAULT_WORK_STREAMS = 64
"""Streams of Work that an identity may have open, unless its quotas say otherwise."""

# Not empty: an empty user would stand for all users in ListJobs and WatchJobs.
_Text = Annotated[str, Meta(min_length=1, pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\Z")]
_Texts = frozenset[_Text]
_Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_JobType = Annotated[
    str, Meta(pattern=rf"\A(\*\Z|{JOB_TYPE.pattern})", max_length=MAX_JOB_TYPE_CHARACTERS)
]

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
    try:
        return convert(content, _File).policy(path.parent)
    except (ValidationError, ValueError) as error:
        raise BadAccessFile(f"{path}: {error}") from None


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file. Its methods raise ValueError."""

    def __post_init__(self) -> None:
        """Check that its names are seen as they are, where they are printed and logged."""
        for key in self.__struct_fields__:
            value = getattr(self, key)
            if isinstance(value, str) and not value.isprintable():
                raise ValueError(f"`{key}` has characters that cannot be printed")


class _Caller(_Table, frozen=True):
    name: _Text
    token_sha256: _Digest = ""
    identity: _Text = ""
    roles: frozenset[Role] = frozenset()
    methods: _Texts = frozenset()
    users: _Texts = frozenset()
    users_claim: _Text = ""
    job_types: frozenset[_JobType] = frozenset()
    create_types: frozenset[_JobType] = frozenset({ANY})
    fairness: Literal["owner", "any"] | None = None
    max_priority: Annotated[int, Meta(ge=0, le=MAX_PRIORITY)] | None = None
    concurrency_keys: _Texts | None = None
    fencing: Literal["optional", "required"] = "optional"
    quotas: Quotas = NO_QUOTAS

    def rule(self) -> Rule:
        """Return what these callers may do."""
        self._check_identity()
        methods = methods_of(self.roles) | frozenset(map(self._path, self.methods))
        for_users = {path for path in methods if METHODS[path].for_users}
        any_user = methods_of(frozenset({Role.OPERATOR}) & self.roles)
        if ANY in self.users:
            any_user |= for_users
        if not methods:
            raise ValueError(f"{self.name!r} needs `roles` or `methods`")
        if self.users_claim and not self.identity.startswith("jwt:"):
            raise ValueError(f"{self.name!r}: `users_claim` is for an `identity` with jwt:")
        if not for_users <= any_user and not (self.users or self.users_claim):
            raise ValueError(
                f"{self.name!r} needs `users` or `users_claim`; [{ANY!r}] means all users"
            )
        works = any(Role.WORKER in METHODS[path].roles for path in methods)
        if works and not self.job_types:
            raise ValueError(f"{self.name!r} needs `job_types`; [{ANY!r}] means all types")
        quotas = self.quotas
        if quotas.work_streams is None:
            quotas = replace(quotas, work_streams=DEFAULT_WORK_STREAMS)
        granted = Permissions(
            methods=methods,
            users=self.users - {ANY},
            any_user=any_user,
            job_types=None if ANY in self.job_types else self.job_types,
            fenced=self.fencing == "required",
            choices=self._choices(),
            quotas=quotas,
        )
        return Rule(self.name, granted, self.users_claim)

    def _choices(self) -> Choices:
        """Return what these callers may choose for the jobs that they create.

        Operators rerun the jobs of all others, with what those have.
        """
        default = ALL_CHOICES if Role.OPERATOR in self.roles else OWN_CHOICES
        keys, most = self.concurrency_keys, self.max_priority
        for key in keys or ():
            start = key.removesuffix(ANY)
            if ANY in start or (start and start != key and not start.endswith(("/", ":"))):
                raise ValueError(
                    f"{self.name!r}: in `concurrency_keys`, {ANY!r} stands alone, or at the end "
                    "after '/' or ':'"
                )
            if USER in start and start != key:
                # `{user}:*` of the user `a` would have keys of the user `a:b`.
                raise ValueError(
                    f"{self.name!r}: in `concurrency_keys`, {ANY!r} does not stand with {USER}"
                )
        return Choices(
            any_tenant=default.any_tenant if self.fairness is None else self.fairness == "any",
            max_priority=default.max_priority if most is None else most,
            concurrency_keys=default.concurrency_keys if keys is None else keys,
            job_types=None if ANY in self.create_types else self.create_types,
        )

    def _path(self, method: str) -> str:
        path = path_of(method)
        if path is None:
            raise ValueError(f"{self.name!r}: {method!r} is no method; write JobService/GetJob")
        return path

    def _check_identity(self) -> None:
        """Check what proves who the caller is. An identity may have ANY at its end."""
        if bool(self.identity) == bool(self.token_sha256):
            raise ValueError(f"{self.name!r} needs `identity` or `token_sha256`, one of them")
        if self.token_sha256 == hashlib.sha256().hexdigest():
            raise ValueError(f"{self.name!r} has the `token_sha256` of an empty token")
        if not self.identity:
            return
        start = self.identity.removesuffix(ANY)
        if not start.startswith(_KINDS) or ANY in start or start in _KINDS[1:]:
            raise ValueError(
                f"{self.name!r}: `identity` begins with {', '.join(_KINDS)}, and only its end may "
                f"be {ANY!r}"
            )
        if self.identity != start and not start.endswith(("/", ":")):
            # `spiffe://example.org/web*` would be `spiffe://example.org/webmaster` too.
            raise ValueError(f"{self.name!r}: in `identity`, {ANY!r} stands after '/' or ':'")
        _check_host(self.identity)


class _Issuer(_Table, frozen=True):
    name: _Text
    issuer: _Text
    audience: _Text | Annotated[_Texts, Meta(min_length=1)]
    jwks_file: _Text = ""
    jwks_url: _Text = ""
    jwks_ca_file: _Text = ""

    def settings(self, folder: Path) -> IssuerSettings:
        """Return the issuer. Its files may be relative to the folder."""
        if "/" in self.name or self.name.endswith(ANY):
            raise ValueError(f"{self.name!r} has a '/' or ends with {ANY!r}")
        if bool(self.jwks_file) == bool(self.jwks_url):
            raise ValueError(f"{self.name!r} needs `jwks_file` or `jwks_url`")
        if self.jwks_url:
            self._check_url()
        elif self.jwks_ca_file:
            raise ValueError(f"{self.name!r}: `jwks_ca_file` is for `jwks_url`")
        audience = self.audience
        return IssuerSettings(
            self.name,
            issuer=self.issuer,
            audiences=(audience,) if isinstance(audience, str) else tuple(sorted(audience)),
            jwks_file=folder / self.jwks_file if self.jwks_file else None,
            jwks_url=self.jwks_url,
            jwks_ca_file=folder / self.jwks_ca_file if self.jwks_ca_file else None,
        )

    def _check_url(self) -> None:
        try:
            parts = urlsplit(self.jwks_url)
            usable = parts.scheme == "https" and parts.hostname and parts.port != 0
        except ValueError:  # of brackets, and of a port
            usable = False
        if not usable:
            raise ValueError(f"{self.name!r}: `jwks_url` begins with https:// and a host")
        if "@" in parts.netloc:
            # Errors of urllib repeat a part of them, and those are logged.
            raise ValueError(f"{self.name!r}: `jwks_url` has no user and password")


class _Proxy(_Table, frozen=True):
    identity: _Text

    def name(self) -> str:
        """Return the name of its certificate."""
        name = self.identity
        if not name.startswith(_CERTIFICATE_KINDS) or name.endswith(ANY):
            kinds = ", ".join(_CERTIFICATE_KINDS)
            raise ValueError(f"[[proxy]] has the `identity` of a certificate: {kinds} and a name")
        _check_host(name)
        return name


class _File(_Table, frozen=True):
    caller: Annotated[Sequence[_Caller], Meta(min_length=1)]
    end: _Table
    issuer: Sequence[_Issuer] = ()
    proxy: Sequence[_Proxy] = ()

    def policy(self, folder: Path) -> Policy:
        """Return the policy. The files that it names may be relative to the folder."""
        for kind, key in (
            *(("caller", "name"), ("caller", "token_sha256"), ("caller", "identity")),
            *(("issuer", "name"), ("issuer", "issuer")),
        ):
            names: dict[str, str] = {}  # by the value: a digest is not printed, nor logged
            for table in getattr(self, kind):
                if value := getattr(table, key):
                    if value in names:
                        both = f"{names[value]!r} and {table.name!r}"
                        raise ValueError(f"two [[{kind}]] have the same `{key}`: {both}")
                    names[value] = table.name
        rules = [(caller, caller.rule()) for caller in self.caller]
        named = {caller.identity: rule for caller, rule in rules if caller.identity}
        return Policy(
            tokens={
                bytes.fromhex(caller.token_sha256): rule
                for caller, rule in rules
                if caller.token_sha256
            },
            identities={name: rule for name, rule in named.items() if not name.endswith(ANY)},
            prefixes={name[:-1]: rule for name, rule in named.items() if name.endswith(ANY)},
            issuers=[issuer.settings(folder) for issuer in self.issuer],
            proxies=frozenset(proxy.name() for proxy in self.proxy),
        )


def _check_host(identity: str) -> None:
    if identity.startswith("dns:") and identity != identity.lower():
        # Names of certificates are compared in lower case: no certificate would match this one.
        raise ValueError(f"{identity!r}: write DNS names in lower case")
