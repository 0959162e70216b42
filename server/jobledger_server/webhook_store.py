"""The port to webhooks: subscriptions, who delivers each, and how far it has come.

Every method raises as those of `store.Store`. A change is durable when its call returns.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from jobledger_server.domain.errors import RequestIdReused
from jobledger_server.domain.job import Instant, Micros
from jobledger_server.domain.limits import DEFAULT_WEBHOOKS_EACH, MAX_ROTATION_IDS


class Webhook(Struct, frozen=True):
    """A subscription and its state.

    Attributes:
        id: Its id.
        user_id: The owner of the jobs; empty for all owners.
        url: Where it posts to.
        job_types: Only jobs of these types; empty for all.
        labels: Only jobs with all of these labels.
        transitions: The names of the states to which it posts transitions; empty for the terminal
            states.
        secret: The key that deliveries are signed with.
        cursor: The resume token after what was delivered or is pending.
        create_time: When it was created.
        disable_time: When it was disabled; None unless it is.
        disable_reason: Why it was disabled.
        success_time: When a delivery last succeeded.
        failure_time: When a delivery last failed.
        last_failure: Why.
        pending: The deliveries before the cursor that have not succeeded, serialized.
        pending_count: How many these are.
        given_up: How many were given up.
        generation: How often it was claimed.
        creator: The identity that created, updated or enabled it last; empty without an access
            file.
        enable_time: When it was last enabled; None if it never was disabled.
        request_id: That of its creation, or nothing.
        previous_secret: The key before the last rotation, or nothing.
        previous_secret_expire_time: Until when deliveries are signed with that, too.
        rotation_ids: The request ids of the last rotations, the latest one last: empty for one
            without.
    """

    id: str
    user_id: str
    url: str
    job_types: Sequence[str]
    labels: Mapping[str, str]
    transitions: Sequence[str]
    secret: str
    cursor: str
    create_time: Instant = Instant(0)
    disable_time: Instant | None = None
    disable_reason: str = ""
    success_time: Instant | None = None
    failure_time: Instant | None = None
    last_failure: str = ""
    pending: bytes = b""
    pending_count: int = 0
    given_up: int = 0
    generation: int = 0
    creator: str = ""
    enable_time: Instant | None = None
    request_id: str = ""
    previous_secret: str = ""
    previous_secret_expire_time: Instant | None = None
    rotation_ids: Sequence[str] = ()

    def rotated(self, secret: str, *, request_id: str, keep: Micros, now: Instant) -> "Webhook":
        """Return it with a new secret; as it is where its last rotation is repeated.

        Args:
            secret: The new key.
            request_id: That of the rotation, or nothing.
            keep: How long deliveries are signed with the key until now, too.
            now: The time.

        Raises:
            RequestIdReused: An earlier rotation is repeated: its key is not the newest any more.
        """
        if request_id and request_id in self.rotation_ids:
            if self.rotation_ids[-1] == request_id:
                return self
            how = "by an earlier rotation"
            raise RequestIdReused(request_id, "Webhook", self.id, how=how)
        return replace(
            self,
            secret=secret,
            previous_secret=self.secret if keep else "",
            previous_secret_expire_time=Instant(now + keep) if keep else None,
            rotation_ids=(*self.rotation_ids, request_id)[-MAX_ROTATION_IDS:],
        )


class Deliveries(Struct, frozen=True):
    """How far a deliverer has come with a webhook. See `Webhook` for the fields.

    Attributes:
        success_time: None leaves it as it was.
        failure_time: None leaves it and `last_failure` as they were.
        given_up: How many were given up in all.
        disable_reason: Disables the webhook unless it is empty.
        release: Ends the claim.
    """

    cursor: str
    pending: bytes = b""
    pending_count: int = 0
    success_time: Instant | None = None
    failure_time: Instant | None = None
    last_failure: str = ""
    given_up: int = 0
    disable_reason: str = ""
    release: bool = False


class Claimed(Struct, frozen=True):
    """What a deliverer holds.

    Attributes:
        taken: The webhooks that it has just taken.
        held: The ids of all that it holds.
        surplus: Those of `held` that are more than its part. It holds them until it releases them.
    """

    taken: Sequence[Webhook]
    held: Sequence[str]
    surplus: Sequence[str] = ()


class Webhooks(Protocol):
    """Keeps webhooks. A deliverer holds one until its lease expires, by the database's clock."""

    async def add(self, webhook: Webhook, *, each: int = DEFAULT_WEBHOOKS_EACH) -> Webhook:
        """Store a new webhook; return it with its time of creation.

        An owner has `each` at most; those of all owners' jobs count in all only.

        If its owner has one with the same request id, that one is returned instead.

        Raises:
            LimitExceeded: There are as many as may be, in all or of this owner.
            StoreConflict: There is one with this id.
        """

    async def get(self, webhook_id: str, *, user_id: str) -> Webhook | None:
        """Return a webhook of this user, or of any if it is empty; None if there is none."""

    async def listed(self, *, user_id: str, after: str, limit: int) -> list[Webhook]:
        """Return the webhooks of an owner, or all, with ids after `after`, in their order."""

    async def remove(self, webhook_id: str, *, user_id: str) -> bool:
        """Delete a webhook if this user, or any if it is empty, has it; return whether it had."""

    async def enable(self, webhook_id: str, *, user_id: str, creator: str) -> Webhook | None:
        """Enable a webhook of this user, or of any; return it, or None if there is none.

        Whoever enables it is its creator from then on. One that is enabled is left as it is.
        """

    async def update(
        self, webhook_id: str, *, user_id: str, change: Callable[[Webhook, Instant], Webhook]
    ) -> Webhook | None:
        """Replace a webhook of this user, or of any, by what `change` makes of it; return that.

        `change` is called with the webhook and the time. It leaves what deliverers store but the
        cursor. The claim ends, so that a deliverer is given the webhook anew. None if there is
        none.
        """

    async def creators(self) -> Collection[tuple[str, str]]:
        """Return the creator and the user of each enabled webhook, each pair once."""

    async def disable(self, creator: str, *, user_id: str, reason: str) -> Sequence[str]:
        """Disable the webhooks of this creator and user, and end their claims; return their ids."""

    async def claim(
        self, deliverer_id: str, known: Collection[str], *, lease: int, limit: int
    ) -> Claimed:
        """Extend what the deliverer holds, and have it take webhooks that nobody holds.

        It takes up to its part: the enabled webhooks divided by the deliverers, rounded up. A
        deliverer counts from its first claim until it leaves, or has not claimed for a lease.

        Args:
            deliverer_id: The deliverer.
            known: The webhooks that it knows to hold. It takes the others that it holds again.
            lease: Microseconds from now until the leases expire.
            limit: How many it takes at most.
        """

    async def leave(self, deliverer_id: str) -> None:
        """Count a deliverer no more. What it holds it holds until it is released."""

    async def save(self, webhook_id: str, generation: int, deliveries: Deliveries) -> bool:
        """Store how far a webhook has come, and return True; False if this claim has ended.

        A claim ends when another one is made, not when its lease expires.
        """
