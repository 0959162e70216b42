"""Signatures of webhooks, held to the specification's own example."""

import base64
import time

import pytest

from jobledger.webhooks import InvalidSignature, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'


def headers(at: int | None = None, body: bytes = BODY, secret: str = SECRET) -> dict[str, str]:
    stamp = int(time.time()) if at is None else at
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(stamp),
        "Webhook-Signature": sign(secret, "msg_1", stamp, body),
    }


def test_the_example_of_the_specification_has_its_signature() -> None:
    signature = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signed_delivery_is_returned() -> None:
    assert verify(SECRET, headers(), BODY) == {"test": 2432232314}


def test_one_of_several_secrets_and_signatures_is_enough() -> None:
    other = "whsec_" + base64.b64encode(b"another").decode()
    given = headers()
    given["Webhook-Signature"] = f"v1,AAAA v2,xyz {given['Webhook-Signature']}"
    assert verify([other, SECRET], given, BODY)


@pytest.mark.parametrize(
    "change",
    [
        {"Webhook-Id": "msg_2"},
        {"Webhook-Id": "\udcff"},  # as some servers read a byte that is not UTF-8
        {"Webhook-Signature": "v1,AAAA"},
        {"Webhook-Signature": ""},
        {"Webhook-Signature": "v1,ü"},
        {"Webhook-Signature": "v1,\udcff"},
        {"Webhook-Timestamp": ""},
        {"Webhook-Timestamp": "-1"},
        {"Webhook-Timestamp": "²"},
        {"Webhook-Timestamp": "9" * 400},
        {"Webhook-Timestamp": "9" * 5000},
    ],
)
def test_what_was_changed_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(InvalidSignature):
        verify(SECRET, headers() | change, BODY)


def test_another_body_time_or_secret_is_refused() -> None:
    later = headers()
    later["Webhook-Timestamp"] = str(int(later["Webhook-Timestamp"]) + 1)
    with pytest.raises(InvalidSignature):
        verify(SECRET, later, BODY)
    with pytest.raises(InvalidSignature):
        verify(SECRET, headers(), BODY + b" ")
    with pytest.raises(InvalidSignature):
        verify("whsec_AAAA", headers(), BODY)


@pytest.mark.parametrize("seconds", [-400, 400])
def test_an_old_delivery_is_refused_though_it_is_signed(seconds: int) -> None:
    with pytest.raises(InvalidSignature):
        verify(SECRET, headers(int(time.time()) + seconds), BODY)


def test_a_secret_that_is_no_base64_is_an_error() -> None:
    with pytest.raises(ValueError, match="whsec_"):
        verify("whsec_!", headers(), BODY)
