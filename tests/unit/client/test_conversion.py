import math

import pytest
from google.protobuf.json_format import MessageToDict

from jobledger.core.conversion import from_struct, to_struct


def test_every_json_value_comes_back_as_it_was():
    value = {
        "null": None,
        "true": True,
        "int": 2**53,
        "float": 0.1,
        "text": "a",
        "empty": {},
        "none": [],
        "deep": {"list": [1, [2, {"x": None}], (3,)]},
    }
    back = MessageToDict(to_struct(value, "parameters"))
    value["deep"]["list"][2] = [3]
    assert back == value
    assert back["true"] is True
    plain = from_struct(to_struct(value, "parameters"))
    assert plain == value
    assert type(plain["int"]) is int


def test_an_absent_struct_stays_absent():
    assert to_struct(None, "result") is None


@pytest.mark.parametrize("value", ["text", 5, [1]])
def test_only_a_mapping_is_an_object(value):
    with pytest.raises(TypeError, match=r"result: .* is not a mapping"):
        to_struct(value, "result")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": {"b": [0, 2**53 + 1]}}, r"parameters\.a\.b\[1\]"),
        ({"a": 10**400}, r"parameters\.a"),
        ({"a": object()}, r"parameters\.a"),
        ({"a": b"bytes"}, r"parameters\.a"),
        ({"a": {1: 2}}, r"parameters\.a"),
        ({"a": "\ud800"}, "surrogates"),
    ],
)
def test_a_value_that_json_cannot_hold_is_refused_by_its_path(value, place):
    with pytest.raises(ValueError, match=place):
        to_struct(value, "parameters")


def test_bottomless_nesting_is_refused_without_exhausting_the_stack():
    deepest: dict[str, object] = {}
    for _ in range(31):  # levels below the first one
        deepest = {"a": deepest}
    assert from_struct(to_struct({"a": deepest}, "parameters")) == {"a": deepest}
    value = {}
    value["self"] = [value]
    with pytest.raises(ValueError, match="nested deeper"):
        to_struct(value, "parameters")


def test_infinite_numbers_are_refused_by_the_server_only():
    assert math.isnan(to_struct({"a": math.nan}, "parameters")["a"])
