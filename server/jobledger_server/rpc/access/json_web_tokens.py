"""JSON Web Tokens as identities. Imported where the access file has an `[[issuer]]` only."""

from collections.abc import Collection, Mapping
from typing import Any

import jwt
from jwt.exceptions import InvalidSubjectError

from jobledger_server.admission.caller import Identity
from jobledger_server.domain.limits import MAX_IDENTITY_CHARACTERS
from jobledger_server.rpc.access.issuers import Issuer
from jobledger_server.rpc.access.permissions import IdentityFault

CLOCK_SKEW_SECONDS = 30
"""How far an issuer's clock may differ from the server's."""

_OPTIONS: Any = {"require": ["exp", "iss", "aud", "sub"]}


_FAULTS: Mapping[type[Exception], IdentityFault] = {
    jwt.InvalidSignatureError: IdentityFault.WRONG_SIGNATURE,
    jwt.InvalidAlgorithmError: IdentityFault.WRONG_SIGNATURE,
    jwt.InvalidAudienceError: IdentityFault.WRONG_AUDIENCE,
    jwt.ExpiredSignatureError: IdentityFault.EXPIRED,
    jwt.ImmatureSignatureError: IdentityFault.NOT_VALID_YET,
    InvalidSubjectError: IdentityFault.NO_SUBJECT,
}
"""Of the library's errors. Others are of a claim that is missing or has a wrong type."""

_MISSING = {"sub": IdentityFault.NO_SUBJECT, "aud": IdentityFault.WRONG_AUDIENCE}


async def verified(
    token: str, issuers: Mapping[str, Issuer], kept: Collection[str]
) -> Identity | IdentityFault:
    """Return the identity of a token, or what is wrong with it.

    Its `iss` names the issuer and its `kid` the key. The key alone determines the algorithm.

    Args:
        token: What the caller sent.
        issuers: By the value of `iss`.
        kept: The claims that the identity keeps.
    """
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except Exception:  # noqa: BLE001
        # Any client may send anything here.
        return IdentityFault.UNKNOWN_TOKEN
    issuer = issuers.get(claimed) if isinstance(claimed, str) else None
    if issuer is None:
        return IdentityFault.WRONG_ISSUER
    try:
        key = await issuer.key(kid)
        if key is None:
            return IdentityFault.UNKNOWN_KEY
        claims: dict[str, Any] = jwt.decode(
            token,
            key.public,
            algorithms=[key.algorithm],
            audience=list(issuer.settings.audiences),
            issuer=issuer.settings.issuer,
            leeway=CLOCK_SKEW_SECONDS,
            options=_OPTIONS,
        )
        # PyJWT takes a text for `exp` too: here that fails.
        until = claims["exp"] + CLOCK_SKEW_SECONDS
    except Exception as error:  # noqa: BLE001
        return _fault(error)
    name = f"{issuer.identities}{claims['sub']}"
    if not claims["sub"] or len(name) > MAX_IDENTITY_CHARACTERS or not name.isprintable():
        return IdentityFault.NO_SUBJECT
    kept_claims = {claim: claims[claim] for claim in kept if claim in claims}
    return Identity(name, until, kept_claims, key=key)


def _fault(error: Exception) -> IdentityFault:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return _MISSING.get(error.claim, IdentityFault.WRONG_CLAIM)
    return _FAULTS.get(type(error), IdentityFault.WRONG_CLAIM)
