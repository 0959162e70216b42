"""Webhooks: each claim is one deliverer's, and when it has ended nothing more is stored by it."""

from collections import defaultdict
from collections.abc import Iterator

from tests.checker.history import History, WebhookClaim
from tests.checker.judge.violation import Violation


def check_webhooks(history: History) -> Iterator[Violation]:
    """Yield what is wrong with claims, saves and changes of webhooks."""
    claims: defaultdict[str, list[WebhookClaim]] = defaultdict(list)
    for claim in history.webhook_claims:
        for other in claims[claim.webhook_id]:
            if other.generation == claim.generation:
                what = f"{claim} and {other} are of one generation"
                yield Violation("webhooks", "duplicated", what)
        claims[claim.webhook_id].append(claim)
    for save in history.webhook_saves:
        own = [each for each in claims[save.webhook_id] if each.generation == save.generation]
        ends = [
            *(
                claim
                for claim in claims[save.webhook_id]
                if claim.generation > save.generation and claim.answered < save.sent
            ),
            *(
                change
                for change in history.webhook_changes
                if change.webhook_id == save.webhook_id
                and change.rpc != "GetWebhook"
                and any(claim.answered < change.sent for claim in own)
                and change.answered < save.sent
            ),
            *(
                other
                for other in history.webhook_saves
                if other.released
                and (other.webhook_id, other.generation) == (save.webhook_id, save.generation)
                and other.answered < save.sent
            ),
        ]
        if ends:
            yield Violation("webhooks", "wrong", f"{save} was accepted after {ends[0]}")
    for change in history.webhook_changes:
        if change.wanted != change.found:
            yield Violation("webhooks", "lost", f"{change}")
