"""Checks the fields of requests by the rules that the protos state.

All violations are collected, so that a caller gets them in one answer.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Self, TypeVar
from urllib.parse import urlsplit

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger_server.domain.job import MICROS_PER_SECOND, Instant, Micros, Payload
from jobledger_server.domain.limits import (
    MAX_CONTENT_TYPE_CHARACTERS,
    MAX_ERROR_REASON_CHARACTERS,
    MAX_JOB_TYPE_CHARACTERS,
    MAX_LABEL_KEY_CHARACTERS,
    MAX_LABEL_VALUE_CHARACTERS,
    MAX_LABELS,
    MAX_STREAM_NAME_CHARACTERS,
    MAX_STRUCT_BYTES,
    MAX_STRUCT_DEPTH,
    MAX_URL_CHARACTERS,
)

Number = TypeVar("Number", int, float)

JOB_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*\Z")
_STREAM_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_STREAM_NAME_CHARACTERS - 1}}}\Z")
_CONTENT_TYPE = re.compile(r"[!#$&^_.+\-0-9A-Za-z]+/[!#$&^_.+\-0-9A-Za-z]+(?:;[\x20-\x7e]*)?\Z")
_REASON = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}\Z")
_UNSAFE_IN_URL = re.compile(r"[\x00-\x20\x7f-\x9f]")

# The years 1 to 9999, the range of google.protobuf.Timestamp.
_MIN_SECONDS, _MAX_SECONDS = -62_135_596_800, 253_402_300_799


MAX_VIOLATIONS = 20
"""Violations that a status names. The others are counted."""

MAX_TEXT_CHARACTERS = 200
"""Characters of a violation's field and of its description at most."""


class InvalidRequest(Exception):
    """At least one field breaks its rule.

    Attributes:
        violations: (field, description) of the first violations.
        more: How many others there are.
        token: The field is a page token or resume token.
    """

    def __init__(
        self, violations: Collection[tuple[str, str]], *, more: int = 0, token: bool = False
    ) -> None:
        super().__init__(violations)
        self.violations = tuple(violations)
        self.more = more
        self.token = token


@dataclass
class _Violations:
    """The violations of one request."""

    first: list[tuple[str, str]] = field(default_factory=list)
    more: int = 0

    def add(self, name: str, description: str) -> None:
        if len(self.first) < MAX_VIOLATIONS:
            self.first.append((name[:MAX_TEXT_CHARACTERS], description[:MAX_TEXT_CHARACTERS]))
        else:
            self.more += 1


class Checker:
    """Checks the fields of one request and collects the violations.

    At its end, the `with` block of a checker raises InvalidRequest if there are any.
    """

    def __init__(self, path: str = "", violations: _Violations | None = None) -> None:
        self._path = path
        self._violations = _Violations() if violations is None else violations

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        found = self._violations
        if kind is None and found.first:
            raise InvalidRequest(found.first, more=found.more)

    def within(self, path: str) -> "Checker":
        """Return a checker for a part of the request, whose fields have this prefix."""
        return Checker(self._path + path, self._violations)

    def add(self, name: str, description: str) -> None:
        self._violations.add(self._path + name, description)

    def at_most(self, name: str, value: Sized, limit: int, *, of: str = "entries") -> bool:
        """Check the size of a value before reading it; return whether it is valid."""
        if len(value) > limit:
            self.add(name, f"has {len(value)} {of}, at most {limit} are allowed")
            return False
        return True

    def each(
        self, name: str, values: Sequence[str], limit: int, check: Callable[[str, str], str]
    ) -> list[str]:
        """Check a list and each entry with `check`. A list that is too long is returned empty."""
        if not self.at_most(name, values, limit):
            return []
        return [check(f"{name}[{i}]", value) for i, value in enumerate(values)]

    def name(self, field: str, value: str, limit: int, *, required: bool = True) -> str:
        """Check a name: 1 to `limit` characters, without control characters."""
        if not value and not required:
            return value
        # To look for what is not printable is faster.
        if self._sized(field, value, limit) and not value.isprintable() and _CONTROL.search(value):
            self.add(field, "has a control character")
        return value

    def sha256(self, field: str, value: str) -> str:
        """Check a SHA-256 digest, or an empty text, and return it in lower case."""
        if value and not _SHA256.match(value):
            self.add(field, "must be 64 hexadecimal digits")
        return value.lower()

    def text(self, field: str, value: str, limit: int) -> str:
        """Check a human-readable text: at most `limit` characters, no U+0000."""
        if self.at_most(field, value, limit, of="characters") and "\0" in value:
            self.add(field, "has the character U+0000")
        return value

    def job_type(self, field: str, value: str) -> str:
        if self._sized(field, value, MAX_JOB_TYPE_CHARACTERS) and not JOB_TYPE.match(value):
            self.add(
                field, "must be letters, digits, '.', '_', '-', starting with a letter or digit"
            )
        return value

    def stream_name(self, field: str, value: str) -> str:
        """Check the name of a stream of output, which may be empty."""
        if value and not _STREAM_NAME.match(value):
            self.add(
                field,
                f"must be at most {MAX_STREAM_NAME_CHARACTERS} letters, digits, '.', '_', '-', "
                "starting with a letter or digit",
            )
        return value

    def content_type(self, field: str, value: str) -> str:
        """Check a media type, or an empty text."""
        fits = self.at_most(field, value, MAX_CONTENT_TYPE_CHARACTERS, of="characters")
        if fits and value and not _CONTENT_TYPE.match(value):
            self.add(field, "must be a media type, as text/plain; charset=utf-8")
        return value

    def reason(self, field: str, value: str) -> str:
        if self._sized(field, value, MAX_ERROR_REASON_CHARACTERS) and not _REASON.match(value):
            self.add(field, "must be UPPER_SNAKE_CASE")
        return value

    def labels(self, field: str, given: Mapping[str, str]) -> dict[str, str]:
        if not self.at_most(field, given, MAX_LABELS):
            return {}
        labels = {key: given[key] for key in given}
        for key, value in labels.items():
            if len(key) > MAX_LABEL_KEY_CHARACTERS or not _LABEL_KEY.match(key):
                self.add(
                    field,
                    f"has the key {key[:MAX_LABEL_KEY_CHARACTERS]!r}: must be 1 to "
                    f"{MAX_LABEL_KEY_CHARACTERS} letters, digits, '.', '_', '/', '-', "
                    "starting with a letter or digit",
                )
            elif len(value) > MAX_LABEL_VALUE_CHARACTERS or _CONTROL.search(value):
                self.add(
                    f"{field}[{key!r}]",
                    f"must be at most {MAX_LABEL_VALUE_CHARACTERS} characters without control "
                    "characters",
                )
        return labels

    def at_least_zero(self, field: str, value: int) -> int:
        if value < 0:
            self.add(field, f"is {value}, must not be negative")
        return value

    def struct(self, field: str, struct: Struct, limit: int = MAX_STRUCT_BYTES) -> Payload | None:
        """Check a Struct and return it serialized, with its keys sorted. An empty one is none."""
        size = struct.ByteSize()
        if size > limit:  # sorting so many keys would take long
            self.add(field, f"has {size} bytes, at most {limit} are allowed")
            return None
        violation = _struct_violation(struct)
        if violation:
            self.add(field, violation)
        data = struct.SerializeToString(deterministic=True)
        return Payload(data) if data else None

    def url(self, field: str, url: str, schemes: Collection[str]) -> str:
        """Check a URL: absolute, of an allowed scheme, with a host, without credentials."""
        if not self.at_most(field, url, MAX_URL_CHARACTERS, of="characters"):
            return url
        try:
            parts = urlsplit(url)
            host = parts.hostname
            _ = parts.port  # parsed, and refused, only when it is read
        except ValueError as error:
            self.add(field, f"is not a URL: {error}")
            return url
        if _UNSAFE_IN_URL.search(url):
            self.add(field, "has a space or a control character")
        elif parts.scheme not in schemes:
            self.add(field, f"must be absolute and have a scheme of {', '.join(sorted(schemes))}")
        elif not host:
            self.add(field, "has no host")
        elif "@" in parts.netloc:
            self.add(field, "must not contain a user name or password")
        return url

    def timestamp(self, field: str, value: Timestamp) -> Instant:
        if not _MIN_SECONDS <= value.seconds <= _MAX_SECONDS or not 0 <= value.nanos < 10**9:
            self.add(field, "is not a time from year 1 to 9999")
        return Instant(value.seconds * MICROS_PER_SECOND + value.nanos // 1000)

    def duration(self, field: str, value: Duration, shortest: float, longest: float) -> Micros:
        """Check a duration, given its bounds in seconds."""
        micros = value.seconds * MICROS_PER_SECOND + value.nanos // 1000
        # Rounded: a bound that is another duration is not exact in seconds.
        least, most = round(shortest * MICROS_PER_SECOND), round(longest * MICROS_PER_SECOND)
        bounded = least <= micros <= most and (micros < most or value.nanos % 1000 == 0)
        if not bounded or not 0 <= value.nanos < 10**9:
            self.add(field, f"must be from {shortest:g} to {longest:.12g} seconds")
        return Micros(micros)

    def number(self, field: str, value: Number, lowest: float, highest: float) -> Number:
        if not lowest <= value <= highest:
            self.add(field, f"is {value}, must be from {lowest} to {highest}")
        return value

    def _sized(self, field: str, value: str, limit: int) -> bool:
        """Check that a value is not empty and not too long; return whether that is so."""
        if not value:
            self.add(field, "is required")
            return False
        return self.at_most(field, value, limit, of="characters")


def _struct_violation(struct: Struct) -> str | None:
    """Return what is wrong with a Struct. Iterative, because its depth is the caller's choice."""
    open_values: list[tuple[Struct | ListValue, int]] = [(struct, 1)]
    while open_values:
        container, depth = open_values.pop()
        if depth > MAX_STRUCT_DEPTH:
            return f"is nested deeper than {MAX_STRUCT_DEPTH} levels"
        if isinstance(container, Struct):
            fields = container.fields
            if "\0" in "".join(fields):
                return "has the character U+0000 in a key"
            values: Iterable[Value] = map(fields.__getitem__, fields)
        else:
            values = container.values
        for value in values:
            kind = value.WhichOneof("kind")
            if kind == "string_value":
                if "\0" in value.string_value:
                    return "has the character U+0000"
            elif kind == "number_value":
                if not math.isfinite(value.number_value):
                    return "has a number that is not finite"
            elif kind == "struct_value":
                open_values.append((value.struct_value, depth + 1))
            elif kind == "list_value":
                open_values.append((value.list_value, depth + 1))
            elif kind is None:
                return "has a value without a kind"
    return None
