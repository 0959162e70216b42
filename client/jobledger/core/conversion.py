"""Between Python values and protobuf's messages, without loss: JSON objects, times, time spans."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

JsonObject: TypeAlias = Mapping[str, object]
Seconds: TypeAlias = float | timedelta

_Fields = ParamSpec("_Fields")
MessageT = TypeVar("MessageT", bound=Message)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Longer than any program runs, and than the service allows; gRPC can add it to the present time.
_LONGEST: Final = 10 * 365 * 86400.0

# The server's limit. A message little deeper could not be read at all: each level nests three
# messages, and protobuf reads a hundred.
_MAX_DEPTH = 32


def build(
    kind: Callable[_Fields, MessageT], *none: _Fields.args, **fields: _Fields.kwargs
) -> MessageT:
    """Make a message of its fields. Protobuf's own refusals do not name the field.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a field cannot be held: a number is too large, a text is not Unicode.
    """
    try:
        return kind(*none, **fields)
    except (TypeError, ValueError):
        for name, value in fields.items():
            _try_field(kind, name, value)
        raise


def _try_field(kind: Callable[..., Message], name: str, value: object) -> None:
    try:
        kind(**{name: value})
    except TypeError:
        raise TypeError(f"{name}: {value!r:.100} has the wrong type") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def to_struct(value: JsonObject | None, where: str) -> Struct | None:
    """Convert a JSON object.

    Raises:
        TypeError: `value` is no mapping.
        ValueError: JSON cannot hold one of its values, whose path the message names. A Struct's
            numbers are doubles, so an integer that a double would change is refused too.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{where}: {type(value).__name__} is not a mapping")
    struct = Struct()
    _fill_struct(struct, value, where, 1)
    return struct


def from_struct(struct: Struct) -> dict[str, Any]:
    """Convert back. Whole numbers become `int`: a Struct does not know whether they were."""
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
        _fill(struct.fields[_unicode(key, where)], item, f"{where}.{key}", depth)


def _fill(target: Value, item: object, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"{where:.100}: nested deeper than {_MAX_DEPTH} levels")
    match item:
        case None:
            target.null_value = 0  # type: ignore[assignment]
        case bool():
            target.bool_value = item
        case int() | float():
            target.number_value = _double(item, where)
        case str():
            target.string_value = _unicode(item, where)
        case Mapping():
            target.struct_value.SetInParent()
            _fill_struct(target.struct_value, item, where, depth + 1)
        case list() | tuple():
            target.list_value.SetInParent()
            for index, element in enumerate(item):
                _fill(target.list_value.values.add(), element, f"{where}[{index}]", depth + 1)
        case _:
            raise ValueError(f"{where}: {type(item).__name__} is not a JSON value")


def _unicode(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # For instance a file's name that is not UTF-8: os.fsdecode() escapes it with surrogates.
        raise ValueError(f"{where}: {error}") from None
    return text


def _double(number: float, where: str) -> float:
    try:
        double = float(number)
        exact = not isinstance(number, int) or int(double) == number
    except OverflowError:
        exact = False
    if not exact:
        raise ValueError(f"{where}: {number} does not fit a double; send it as a string")
    return double


def from_timestamp(timestamp: Timestamp) -> datetime:
    """Convert to an aware datetime in UTC; exact to the microsecond, as the service's times are."""
    return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)


def to_timestamp(moment: datetime | None, where: str) -> Timestamp | None:
    """Convert an aware datetime.

    Raises:
        TypeError: it is no datetime.
        ValueError: it has no time zone.
    """
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise TypeError(f"{where}: {type(moment).__name__} is no datetime")
    if moment.utcoffset() is None:
        raise ValueError(f"{where}: a datetime needs a time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def from_duration(duration: Duration) -> timedelta:
    """Convert to a timedelta; exact to the microsecond."""
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)


def to_duration(value: Seconds | None, where: str) -> Duration | None:
    """Convert a time span. Raises as `to_seconds`."""
    if value is None:
        return None
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=to_seconds(value, where)))
    return duration


def to_seconds(value: Seconds, where: str) -> float:
    """Return a time span in seconds, at most ten years.

    Raises:
        TypeError: it is neither a number nor a timedelta.
        ValueError: it is negative or no number.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{where}: {type(value).__name__} is neither seconds nor a timedelta")
    if not seconds >= 0:  # not a number, too
        raise ValueError(f"{where}: {value} is not a time span")
    return float(min(seconds, _LONGEST))
