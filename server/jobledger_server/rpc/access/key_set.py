"""A JSON Web Key Set: the public keys of an issuer, each for one algorithm."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

ALGORITHMS = ("RS256", "ES256", "EdDSA")

MIN_RSA_BITS = 2048

MAX_KEYS = 100


class BadKeySet(Exception):
    """A key set cannot be used. The message says why, without a subject."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key.

    Attributes:
        kid: The id by which tokens name it, or None.
        algorithm: The one algorithm that it verifies, one of ALGORITHMS.
        public: The key, as PyJWT takes it.
    """

    kid: str | None
    algorithm: str
    public: Any


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of an issuer that can be used. Others are left out."""

    keys: Sequence[Key]

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Parse a JSON Web Key Set. Raises BadKeySet if no key of it can be used."""
        try:
            parsed = json.loads(content)
        except (ValueError, RecursionError):
            raise BadKeySet("is not JSON") from None
        return cls.of(parsed)

    @classmethod
    def of(cls, parsed: Any) -> Self:
        """Return the key set that JSON is. Raises BadKeySet if no key of it can be used."""
        entries = parsed.get("keys") if isinstance(parsed, dict) else None
        if not isinstance(entries, list):
            raise BadKeySet("is not a JSON Web Key Set")
        if len(entries) > MAX_KEYS:
            raise BadKeySet(f"has more than {MAX_KEYS} keys")
        keys = tuple(key for entry in entries if (key := _key(entry)) is not None)
        if not keys:
            raise BadKeySet("has no public key for RS256, ES256 or EdDSA")
        kids = [key.kid for key in keys if key.kid is not None]
        if len(kids) != len(set(kids)):
            raise BadKeySet("has two keys with the same kid")
        return cls(keys)

    def find(self, kid: str | None) -> Key | None:
        """Return the key with this id. Without an id it is the only key, if there is just one."""
        if kid is None:
            return self.keys[0] if len(self.keys) == 1 else None
        return next((key for key in self.keys if key.kid == kid), None)


def _key(entry: Any) -> Key | None:
    if not isinstance(entry, dict):
        return None
    kid = entry.get("kid")
    if entry.get("use", "sig") != "sig" or not (kid is None or isinstance(kid, str)):
        return None
    # An optional extra.
    import jwt  # noqa: PLC0415

    try:
        # Without the private part, if somebody has published it, and without `alg`: so the kind of
        # key alone determines its algorithm, and no token can choose another one.
        key = jwt.PyJWK({name: entry.get(name) for name in _PUBLIC})
    except (jwt.PyJWTError, LookupError, AttributeError, TypeError, ValueError):
        return None
    algorithm, public = key.algorithm_name, key.key
    if algorithm not in ALGORITHMS or entry.get("alg", algorithm) != algorithm:
        return None
    # Its text says nothing of its length: it may begin with zeros.
    if algorithm == "RS256" and public.key_size < MIN_RSA_BITS:
        return None
    return Key(kid, algorithm, public)


_PUBLIC = ("kty", "crv", "x", "y", "n", "e")
