"""What the checker finds wrong with webhooks."""

import pytest

from tests.checker.history import History, WebhookChange, WebhookClaim, WebhookSave
from tests.checker.judge.validate import judge

CLAIM = WebhookClaim("d1", "w", 1, sent=1.0, answered=2.0)
LATER_CLAIM = WebhookClaim("d2", "w", 2, sent=3.0, answered=4.0)
SAVE = WebhookSave("w", 1, sent=5.0, answered=6.0, released=False)


def found(**recorded: object) -> list[str]:
    history = History(**recorded)
    return [violation.kind for violation in judge(history)["webhooks"]]


@pytest.mark.parametrize(
    "end",
    [
        {"webhook_claims": [CLAIM, LATER_CLAIM]},
        {"webhook_changes": [WebhookChange("RotateSecret", "w", 3.0, 4.0)]},
        {"webhook_saves": [WebhookSave("w", 1, 3.0, 4.0, released=True), SAVE]},
    ],
    ids=["claimed", "changed", "released"],
)
def test_a_save_that_is_accepted_after_the_end_of_its_claim_is_wrong(
    end: dict[str, list[object]],
) -> None:
    assert found(**{"webhook_claims": [CLAIM], "webhook_saves": [SAVE], **end}) == ["wrong"]


def test_a_save_that_was_sent_before_the_end_of_its_claim_is_right() -> None:
    early = WebhookSave("w", 1, sent=3.5, answered=6.0, released=False)
    changed = WebhookChange("RotateSecret", "w", 3.0, 4.0)
    assert not found(
        webhook_claims=[CLAIM, LATER_CLAIM], webhook_saves=[early], webhook_changes=[changed]
    )


def test_a_change_before_a_claim_ends_nothing_of_it() -> None:
    changed = WebhookChange("RotateSecret", "w", 0.1, 0.2)
    assert not found(webhook_claims=[CLAIM], webhook_saves=[SAVE], webhook_changes=[changed])


def test_a_claim_is_one_deliverers_alone() -> None:
    other = WebhookClaim("d2", "w", 1, sent=3.0, answered=4.0)
    assert found(webhook_claims=[CLAIM, other]) == ["duplicated"]


def test_what_a_repeated_call_answers_is_the_same() -> None:
    assert found(webhook_changes=[WebhookChange("RotateSecret", "w", 1.0, 2.0, "a", "b")]) == [
        "lost"
    ]
