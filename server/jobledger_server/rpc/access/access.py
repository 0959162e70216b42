"""Access control: who calls, and whether it may. The access file is followed while it changes."""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobledger_server.admission.caller import NOTHING_PERMITTED, Caller, Identity, Permissions
from jobledger_server.rpc.access.access_file import BadAccessFile, read_access_file
from jobledger_server.rpc.access.certificates import (
    Certificate,
    forwarded_certificate,
    peer_certificate,
)
from jobledger_server.rpc.access.issuers import Issuer, IssuerSettings
from jobledger_server.rpc.access.key_set import BadKeySet
from jobledger_server.rpc.access.lasting_calls import LastingCalls
from jobledger_server.rpc.access.permissions import IdentityFault, Unauthenticated
from jobledger_server.rpc.owner import Metadata
from jobledger_server.runtime.files import FileState, file_state

FILE_CHECK_SECONDS = 0.5
"""How often the access file is checked: polling works on every file system, and with Kubernetes'
symbolic links. A change counts once it is this old, so that a file that is being written is not
reported as unusable."""

MAX_REMEMBERED = 10_000
"""JSON Web Tokens at most that are remembered with their callers."""

log = logging.getLogger("jobledger.access")


class Access:
    """The access file as it is now.

    Args:
        path: The file.
        lasting: The running calls that depend on it.

    Attributes:
        policy: Its rules.
        reload_fails: Whether the file could not be used when it was last read.

    Raises:
        BadAccessFile: The file cannot be used.
    """

    def __init__(self, path: Path, lasting: LastingCalls) -> None:
        self._path = path
        self._lasting = lasting
        self._check_now = asyncio.Event()
        self._issuers: dict[str, Issuer] = {}
        self._by_token: OrderedDict[bytes, Caller] = OrderedDict()
        self.reload_fails = False
        self._load()

    @property
    def failing_issuers(self) -> int:
        """How many issuers' keys could not be read when that was last tried."""
        return sum(issuer.reload_fails for issuer in self._issuers.values())

    async def caller(self, context: Any, metadata: Metadata, tokens: Sequence[str]) -> Caller:
        """Return who makes a call. Raises Unauthenticated without a valid identity.

        `tokens` has one for each authorization of the call, empty if it is another kind of one.
        """
        if tokens:
            # A token takes precedence over the certificate of the connection.
            return await self._token_holder(*tokens)
        certificate = peer_certificate(context.auth_context())
        if certificate is None:
            raise Unauthenticated(IdentityFault.NO_CREDENTIALS)
        if certificate.name in self.policy.proxies:
            certificate = _named_by_proxy(certificate, metadata)
        if not certificate.name:
            raise Unauthenticated(IdentityFault.NO_NAME)
        # A session that is resumed, for two days at most, skips TLS's own check of this.
        if certificate.until <= time.time():
            raise Unauthenticated(IdentityFault.EXPIRED)
        return _caller(self.policy.permissions(Identity(*certificate)))

    def permissions_of(self, name: str, user_id: str) -> Permissions:
        """Return what the identity of this name may do now, where it acts for this user.

        Its proof is not at hand. If claims of its tokens name users, this user counts as named: it
        was when the identity acted for it.
        """
        rule = self._by_name.get(name)
        if rule is None:
            issued = name.startswith("jwt:")
            if issued and not any(name.startswith(it.identities) for it in self._issuers.values()):
                return NOTHING_PERMITTED
            rule = self.policy.rule_of(name)
        if rule is None:
            return NOTHING_PERMITTED
        return rule.permissions(Identity(name, claims={rule.users_claim: user_id}))

    def reload(self) -> None:
        """Check the access file at once."""
        self._check_now.set()

    async def run(self) -> None:
        """Follow the access file and the issuers' keys until cancelled."""
        seen = self._state
        while True:
            for issuer in tuple(self._issuers.values()):
                issuer.renew()
            with suppress(TimeoutError):
                async with asyncio.timeout(FILE_CHECK_SECONDS):
                    await self._check_now.wait()
            asked = self._check_now.is_set()
            self._check_now.clear()
            state = self._file_state()
            if asked or (state == seen and state != self._state):
                self._reload()
            seen = state

    def _load(self) -> None:
        # Before it is read: if it changes meanwhile, it is read again. If it cannot be used, that
        # is not tried, and not logged, again until it changes.
        self._state = self._file_state()
        policy = read_access_file(self._path)
        issuers = {each.issuer: self._issuer(each) for each in policy.issuers}
        # Nothing can fail from here on.
        self.policy = policy
        self._issuers = issuers
        self._by_name = {f"token:{rule.name}": rule for rule in policy.tokens.values()}
        self._tokens = {digest: _caller(policy.token(digest)) for digest in policy.tokens}
        self._by_token.clear()

    def _issuer(self, settings: IssuerSettings) -> Issuer:
        try:
            # An optional extra.
            import jwt  # noqa: F401, PLC0415
        except ImportError:
            raise BadAccessFile(
                "[[issuer]] needs its library: pip install 'jobledger[jwt]'"
            ) from None
        known = self._issuers.get(settings.issuer)
        issuer = (
            known if known and known.settings == settings else Issuer(settings, self._keys_changed)
        )
        try:
            issuer.read_file()
        except BadKeySet as error:
            raise BadAccessFile(f"{self._path}: issuer {settings.name!r}: {error}") from None
        return issuer

    def _reload(self) -> None:
        before = self.policy
        try:
            self._load()
        except BadAccessFile as error:
            self.reload_fails = True
            log.error("access_file_unusable", extra={"cause": str(error)})  # noqa: TRY400
            return
        self.reload_fails = False
        log.info("access_file_reloaded", extra={"file": str(self._path)})
        policy = self.policy
        same_trust = (before.issuers, before.proxies) == (policy.issuers, policy.proxies)

        def has_changed(permissions: Permissions) -> bool:
            identity = permissions.identity
            # Without a token of the file, it may come from an issuer or a proxy that has changed.
            stays = same_trust or identity.token
            return not (stays and policy.permissions(identity) == permissions)

        # The file says nothing of watch tokens.
        self._lasting.end_where(lambda each: each.scope is None and has_changed(each))

    def _keys_changed(self, issuer: Issuer) -> None:
        self._by_token.clear()

        def is_revoked(permissions: Permissions) -> bool:
            identity = permissions.identity
            return identity.name.startswith(issuer.identities) and not issuer.has(identity.key)

        self._lasting.end_where(is_revoked)

    def _file_state(self) -> FileState | None:
        try:
            return file_state(self._path)
        except OSError:
            return None

    async def _token_holder(self, token: str, *others: str) -> Caller:
        if others:
            raise Unauthenticated(IdentityFault.SEVERAL_TOKENS)
        if not token:
            raise Unauthenticated(IdentityFault.NO_BEARER_TOKEN)
        # Found by its hash, so the time taken reveals nothing about the token.
        digest = hashlib.sha256(token.encode()).digest()
        if caller := self._tokens.get(digest):
            return caller
        known = self._by_token.get(digest)
        if known is not None and time.time() < known.permissions.identity.until:
            return known
        return await self._bearer(token, digest)

    async def _bearer(self, token: str, digest: bytes) -> Caller:
        issuers = self._issuers
        if not issuers:
            raise Unauthenticated(IdentityFault.UNKNOWN_TOKEN)
        # Imports an optional extra.
        from jobledger_server.rpc.access.json_web_tokens import verified  # noqa: PLC0415

        found = await verified(token, issuers, self.policy.claims)
        if issuers is not self._issuers:
            # The file was read again during the await, and may trust other issuers.
            return await self._bearer(token, digest)
        if isinstance(found, IdentityFault):
            raise Unauthenticated(found)
        caller = _caller(self.policy.permissions(found))
        self._by_token[digest] = caller
        if len(self._by_token) > MAX_REMEMBERED:
            self._by_token.popitem(last=False)
        return caller


def _caller(permissions: Permissions) -> Caller:
    return Caller(permissions.identity.name, permissions=permissions)


def _named_by_proxy(proxy: Certificate, metadata: Metadata) -> Certificate:
    client = forwarded_certificate(metadata)
    return proxy if client is None else Certificate(client.name, min(client.until, proxy.until))
