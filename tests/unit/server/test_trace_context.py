"""Which traceparents are valid, by W3C Trace Context."""

import pytest

from jobledger_server.rpc.jobs.trace_context import traceparent_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "value",
    [VALID, f"00-{TRACE}-{PARENT}-00", f"01-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01-later"],
)
def test_a_valid_traceparent_of_any_version_is_kept(value: str) -> None:
    assert traceparent_of([("tracestate", "a=1"), ("traceparent", value)]) == value


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("",),
        ("00",),
        (VALID.upper(),),
        (VALID.encode(),),
        (f"{VALID}-more",),
        (f"{VALID}\n",),
        (f"ff-{TRACE}-{PARENT}-01",),
        (f"00-{'0' * 32}-{PARENT}-01",),
        (f"00-{TRACE}-{'0' * 16}-01",),
        (f"cc-{TRACE}-{PARENT}-01-{'x' * 9}",),
        (f"cc-{TRACE}-{PARENT}-01later",),
        (f"cc-{TRACE}-{PARENT}-01-\0",),
        (f"cc-{TRACE}-{PARENT}-01-\xe9",),
        (VALID, VALID),
    ],
)
def test_a_malformed_traceparent_is_ignored(values: tuple[str | bytes, ...]) -> None:
    assert traceparent_of([("traceparent", each) for each in values]) == ""
