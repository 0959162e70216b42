"""From JSON-like Python values to protobuf's Struct, without losing any, and back."""

from collections.abc import Mapping
from typing import TypeAlias

from google.protobuf.struct_pb2 import Struct, Value

JsonObject: TypeAlias = Mapping[str, object] | Struct

# Far above what the server takes, far below Python's recursion limit.
_MAX_DEPTH = 100


def to_struct(value: JsonObject | None, where: str) -> Struct | None:
    """Convert an object; ValueError names the place of what JSON cannot hold.

    A Struct's numbers are doubles: a whole number that a double would change is
    refused too, since it would come back as another one.
    """
    if value is None or isinstance(value, Struct):
        return value
    struct = Struct()
    _fill_struct(struct, value, where, 1)
    return struct


def from_struct(struct: Struct) -> dict[str, object]:
    """Convert back. Whole numbers come as int: a Struct does not know whether they were."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Value) -> object:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
    return None


def _fill_struct(struct: Struct, value: Mapping[str, object], where: str, depth: int) -> None:
    for key, item in value.items():
        if not isinstance(key, str):
            raise ValueError(f"{where}: the key {key!r} is not a string")  # noqa: TRY004
        _fill(struct.fields[key], item, f"{where}.{key}", depth)


def _fill(target: Value, item: object, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"{where}: nested too deep")
    match item:
        case None:
            target.null_value = 0  # type: ignore[assignment]
        case bool():
            target.bool_value = item
        case int() | float():
            target.number_value = _double(item, where)
        case str():
            target.string_value = item
        case Mapping():
            target.struct_value.SetInParent()
            _fill_struct(target.struct_value, item, where, depth + 1)
        case list() | tuple():
            target.list_value.SetInParent()
            for index, element in enumerate(item):
                _fill(target.list_value.values.add(), element, f"{where}[{index}]", depth + 1)
        case _:
            raise ValueError(f"{where}: {type(item).__name__} is not a JSON value")


def _double(number: float, where: str) -> float:
    try:
        double = float(number)
        exact = not isinstance(number, int) or int(double) == number
    except OverflowError:
        exact = False
    if not exact:
        raise ValueError(f"{where}: {number} does not fit a double; send it as a string")
    return double
