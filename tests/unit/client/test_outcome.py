"""What becomes of what a handler raises."""

import json
import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobledger import Asset
from jobledger.worker.failures import RetryLater, failure, reason_of
from jobledger.worker.outcomes import (
    SERVICE_REASONS,
    Completed,
    Failed,
    Partial,
    Release,
    error_of,
    summary,
)
from jobledger_server.domain import leases

REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ValueError", "VALUE_ERROR"),
        ("OSError", "OS_ERROR"),
        ("JSONDecodeError", "JSON_DECODE_ERROR"),
        ("HTTP2Error", "HTTP2_ERROR"),
        ("NotFound", "NOT_FOUND"),
        ("_Private", "PRIVATE"),
        ("already_snake", "ALREADY_SNAKE"),
        ("Größe", "GR_SSE"),
        ("E2", "E2"),
        ("_", "ERROR"),
        ("A" * 80, "A" * 63),
        ("Cancelled", "CANCELLED_ERROR"),
        ("LeaseExpired", "LEASE_EXPIRED_ERROR"),
    ],
)
def test_a_class_is_spelled_as_a_reason(name, reason):
    assert reason_of(name) == reason


@given(st.text(min_size=1))
def test_every_class_name_becomes_a_valid_reason(name):
    assert REASON.fullmatch(reason_of(name))


@given(st.text())
def test_every_message_becomes_a_valid_one(text):
    message = failure(ValueError(text)).message
    assert 1 <= len(message) <= 4096
    assert "\0" not in message
    message.encode()


def test_the_message_is_the_exceptions_text_without_a_traceback():
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert failure(caught.value).reason == "JSON_DECODE_ERROR"
    assert failure(caught.value).message == str(caught.value)
    assert "Traceback" not in failure(caught.value).message


def test_an_exception_without_a_text_is_reported_by_its_name():
    assert failure(KeyError()).message == "KeyError"


def test_an_exception_whose_text_fails_is_reported_by_its_name():
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError("even this")

    assert failure(Broken()) == Failed("Broken", "BROKEN")


def test_an_exception_group_of_one_is_reported_as_its_member():
    group = ExceptionGroup("unhandled errors in a TaskGroup", [ValueError("disk full")])
    assert failure(ExceptionGroup("outer", [group])) == Failed("disk full", "VALUE_ERROR")


class Busy(RetryLater):
    pass


@pytest.mark.parametrize(
    ("error", "retry_on", "failed"),
    [
        (RetryLater("busy"), (), Failed("busy", "RETRY_LATER", retryable=True)),
        (
            RetryLater(after=timedelta(minutes=1)),
            (),
            Failed("RetryLater", "RETRY_LATER", retryable=True, retry_after=60),
        ),
        (Busy("no", after=5), (), Failed("no", "BUSY", retryable=True, retry_after=5)),
        (
            ConnectionResetError("no"),
            (OSError,),
            Failed("no", "CONNECTION_RESET_ERROR", retryable=True),
        ),
        (ValueError("no"), (OSError, KeyError), Failed("no", "VALUE_ERROR")),
    ],
)
def test_a_failure_is_retryable_if_the_handler_said_so(error, retry_on, failed):
    assert failure(error, retry_on) == failed


@pytest.mark.parametrize(("second", "retryable"), [(BlockingIOError(), True), (KeyError(), False)])
def test_an_exception_group_is_retryable_if_all_of_it_is(second, retryable):
    group = ExceptionGroup("outer", [OSError("no"), ExceptionGroup("inner", [second, Busy()])])
    assert failure(group, (OSError,)).retryable is retryable


def test_a_long_message_is_cut_and_marked():
    message = failure(ValueError("x" * 5000)).message
    assert (len(message), message[-1]) == (4096, "\N{HORIZONTAL ELLIPSIS}")


def test_only_failed_and_partial_with_a_message_have_an_error():
    assert error_of(Completed({"a": 1})) is None
    assert error_of(Partial({"a": 1})) is None
    error = error_of(Partial({"a": 1}, "no sound", "NO_SOUND", details={"track": 2}))
    assert error is not None
    assert (error.reason, error.message, error.details["track"]) == ("NO_SOUND", "no sound", 2)
    error = error_of(Failed(""))
    assert error is not None
    assert error.message == "FAILED"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Completed("done"), "result: "),
        (lambda: Completed({"a": [object()]}), "result.a[0]: "),
        (lambda: Partial({}, 5), "message: "),
        (lambda: Failed(ValueError("no")), "message: ValueError('no')"),
        (lambda: Failed("no", None), "reason: "),
        (lambda: Failed("no", "CANCELLED"), "reason: only the service gives CANCELLED"),
        (lambda: Partial({}, "no", "STALLED"), "reason: only the service gives STALLED"),
        (lambda: Failed("no", "disk full"), "reason: 'disk full' is not UPPER_SNAKE_CASE"),
        (lambda: Partial({}, "no", "A" * 64), "reason: "),
        (lambda: Failed("no", details=[1]), "details: "),
        (lambda: Failed("no", result=7), "result: "),
        (lambda: Completed(assets=7), ""),
        (lambda: Completed(assets={"image/png": 1}), "assets: "),
        (lambda: Completed(assets=[Asset("image/png"), None]), "assets[1]: "),  # type: ignore[list-item]
        (lambda: Completed(assets=[Asset(7)]), "assets[0]: "),
        (lambda: Failed("no", retryable=1), "retryable: "),
        (lambda: Failed("no", retry_after=60), "retry_after: only a retryable failure"),
        (lambda: Failed("no", retryable=True, retry_after="60"), "retry_after: "),
        (lambda: Release(after=-1), "after: "),
        (lambda: RetryLater("no", after=float("nan")), "after: "),
    ],
)
def test_a_wrong_argument_of_an_outcome_is_refused_when_it_is_made(make, words):
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert str(caught.value).startswith(words)


def test_the_reasons_that_only_the_service_gives_are_those_that_it_refuses():
    assert SERVICE_REASONS == leases.SERVICE_REASONS


def test_assets_can_be_any_iterable_and_are_kept_as_a_tuple():
    png = Asset("image/png", url="https://example.com/a.png")
    assert Completed(assets=(each for each in [png])).assets == (png,)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Completed({"a": 1}), "Completed"),
        (Partial({"a": 1}), "Partial"),
        (Failed("no space\nleft", "DISK_FULL"), "Failed (DISK_FULL: no space left)"),
        (Failed("x" * 4096), f"Failed (FAILED: {'x' * 200})"),
        (Failed("busy", retryable=True), "Failed, retryable (FAILED: busy)"),
        (Partial({}, "no sound"), "Partial (no sound)"),
    ],
)
def test_the_log_says_how_a_job_finished_and_why(outcome, words):
    assert summary(outcome) == words
