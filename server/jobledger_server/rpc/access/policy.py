"""The policy of an access file: who may do what. A caller that no rule names may do nothing."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobledger_server.admission.caller import Choices, Identity, Permissions, Quotas
from jobledger_server.rpc.access.issuers import IssuerSettings
from jobledger_server.rpc.methods import JOB_SERVICE

MAX_CLAIMED_USERS = 1000

CREATING = frozenset(
    f"{JOB_SERVICE}{name}" for name in ("CreateJob", "BatchCreateJobs", "RerunJob", "RerunJobs")
)
"""The methods that create jobs."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What the callers of one `[[caller]]` may do.

    Attributes:
        granted: What each of them may do, without its identity.
        users_claim: The claim of a JSON Web Token that names more users.
    """

    name: str
    granted: Permissions
    users_claim: str = ""

    def permissions(self, identity: Identity) -> Permissions:
        """Return what this identity may do."""
        users = self.granted.users
        if self.users_claim:
            users |= _claimed_users(identity.claims.get(self.users_claim))
        return replace(self.granted, identity=identity, users=users)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of an access file.

    Attributes:
        tokens: Rules by the SHA-256 of a token.
        identities: Rules by the name of an identity.
        prefixes: Rules by the beginning of the name, which ends with '/' or ':'.
        proxies: The names of identities that are trusted to report the identities of their clients.
    """

    tokens: Mapping[bytes, Rule]
    identities: Mapping[str, Rule] = field(default_factory=dict)
    prefixes: Mapping[str, Rule] = field(default_factory=dict)
    issuers: Sequence[IssuerSettings] = ()
    proxies: frozenset[str] = frozenset()

    @property
    def claims(self) -> frozenset[str]:
        """The claims of JSON Web Tokens that rules use."""
        rules = (*self.identities.values(), *self.prefixes.values())
        return frozenset(rule.users_claim for rule in rules if rule.users_claim)

    def summary(self) -> Iterator[str]:
        """Yield a line for each rule, for people."""
        named = {
            **{f"token:{rule.name}": rule for rule in self.tokens.values()},
            **self.identities,
            **{f"{start}*": rule for start, rule in self.prefixes.items()},
        }
        for name, rule in named.items():
            granted = rule.granted
            users = sorted(granted.users) + ["*"] * bool(granted.any_user)
            if rule.users_claim:
                users.append(f"claim {rule.users_claim}")
            types = ["*"] if granted.job_types is None else sorted(granted.job_types)
            calls = sorted(path.rpartition(".")[2] for path in granted.methods)
            yield f"{rule.name}: {name}"
            yield f"  methods: {', '.join(calls)}"
            yield f"  users: {', '.join(users) or 'none'}"
            yield f"  job types: {', '.join(types) or 'none'}"
            if granted.methods & CREATING:
                yield f"  jobs that it creates: {', '.join(_choices(granted.choices))}"
            yield f"  fencing: {'required' if granted.fenced else 'optional'}"
            yield f"  quotas: {', '.join(_quotas(granted.quotas)) or 'none'}"

    def token(self, digest: bytes) -> Permissions:
        """Return what the holder of the token with this SHA-256 may do."""
        rule = self.tokens[digest]
        return rule.permissions(Identity(f"token:{rule.name}", token=digest))

    def permissions(self, identity: Identity) -> Permissions:
        """Return what an identity may do, by the most specific rule that names it."""
        if identity.token in self.tokens:
            return self.token(identity.token)
        rule = self.rule_of(identity.name)
        return Permissions(identity) if rule is None else rule.permissions(identity)

    def rule_of(self, name: str) -> Rule | None:
        """Return the most specific rule for the name of an identity that is no token's."""
        return self.identities.get(name) or self._by_prefix(name)

    def _by_prefix(self, name: str) -> Rule | None:
        """Return the rule of the longest prefix of a name. It costs the same for any number."""
        for separator in reversed([*re.finditer("[/:]", name)]):
            if rule := self.prefixes.get(name[: separator.end()]):
                return rule
        return None


def _choices(choices: Choices) -> Iterator[str]:
    types, keys = choices.job_types, sorted(choices.concurrency_keys)
    yield f"types {'*' if types is None else ' '.join(sorted(types)) or 'none'}"
    yield f"fairness {'any' if choices.any_tenant else 'owner'}"
    yield f"max_priority {choices.max_priority}"
    yield f"concurrency_keys {' '.join(keys) or 'none'}"


def _quotas(quotas: Quotas) -> Iterator[str]:
    for name in quotas.__struct_fields__:
        if (value := getattr(quotas, name)) is not None:
            yield f"{name} {value}"


def _claimed_users(claim: Any) -> frozenset[str]:
    """Return the users that a claim names: a text or a list of texts, taken literally."""
    users = [claim] if isinstance(claim, str) else claim
    if not isinstance(users, list) or len(users) > MAX_CLAIMED_USERS:
        return frozenset()
    return frozenset(user for user in users if isinstance(user, str) and user)
