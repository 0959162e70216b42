"""Random requests that know the contract: values at its limits, just beyond, and far from it."""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

LENGTHS = (0, 1, 2, 35, 36, 37, 50, 51, 63, 64, 127, 128, 129, 255, 256, 512, 513, 1024, 2049, 5000)
LETTERS = (
    "a",
    "Z",
    "0",
    ".",
    "-",
    "_",
    "/",
    " ",
    "\0",
    "\n",
    "\x7f",
    "\x9f",
    "ü",
    "\u202e",
    "😀",
    "%",
)
WORDS = (
    "render",
    "ada",
    "https://e.example/a.png",
    "http://[::1",
    "https://user:password@e.example/",
    "https://e.example:99999/",
    "javascript:alert(1)",
    "//e.example",
    "https://\u2100.example/",
    "jobs/x",
    "done=true AND done=false",
    'metadata.job_type="a" AND done = true',
    "'; DROP TABLE jobs; --",
    "%s%n{}${}",
)
INTEGERS = (
    0,
    1,
    -1,
    2,
    5,
    99,
    100,
    101,
    1000,
    1001,
    2**31 - 1,
    -(2**31),
    2**62,
    2**63 - 1,
    -(2**63),
)
NUMBERS = (0.0, -0.0, 0.001, 1.5, 50.0, 1e308, 5e-324, math.nan, math.inf, -math.inf)
COUNTS = (0, 1, 1, 2, 3, 5, 33, 101, 1001)

MAX_BYTES = 4 * 1024 * 1024
"""Bytes of the equal messages in one field at most; the service accepts 1.25 MiB in all. Where
messages in messages are repeated, 1,001 of 1,001 would be a gigabyte."""


class Fuzz:
    """Makes messages. The same seed and the same `known` strings make the same ones."""

    def __init__(self, seed: int, known: Sequence[str] = ()) -> None:
        self._random = Random(seed)
        self._known = known

    def request(self, kind: type[Message]) -> bytes:
        """Return a message of this kind, serialized; one in ten is damaged afterwards."""
        message = kind()
        self._fill(message, 0)
        data = message.SerializeToString()
        return self._damaged(data) if self._random.random() < 0.1 else data

    def _fill(self, message: Any, depth: int) -> None:
        if isinstance(message, Struct):
            self._fill_struct(message, depth)
            return
        descriptor: Descriptor = message.DESCRIPTOR
        for field in descriptor.fields:
            if self._random.random() < (0.75 if depth == 0 else 0.4):
                self._set(message, field, depth)

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if depth > 4:
            return
        if not field.is_repeated:
            if field.message_type is not None:
                part = getattr(message, field.name)
                part.SetInParent()
                self._fill(part, depth + 1)
            else:
                setattr(message, field.name, self._scalar(field))
            return
        values = getattr(message, field.name)
        count = self._random.choice(COUNTS)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for _ in range(min(count, 40)):
                values[self._text()] = self._text()
        elif field.message_type is not None:
            if count:
                first = values.add()
                self._fill(first, depth + 1)
                values.extend([first] * (min(count, MAX_BYTES // (first.ByteSize() + 1)) - 1))
        else:
            values.extend([self._scalar(field)] * count)

    def _scalar(self, field: FieldDescriptor) -> Any:
        random = self._random
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return self._text().encode()
            case FieldDescriptor.CPPTYPE_STRING:
                return self._text()
            case FieldDescriptor.CPPTYPE_BOOL:
                return random.random() < 0.5
            case FieldDescriptor.CPPTYPE_ENUM:
                return random.choice((0, 1, 2, 3, 4, 5, 6, -1, 2**31 - 1))
            case FieldDescriptor.CPPTYPE_INT32:
                return max(-(2**31), min(random.choice(INTEGERS), 2**31 - 1))
            case FieldDescriptor.CPPTYPE_INT64:
                return random.choice(INTEGERS)
            case FieldDescriptor.CPPTYPE_DOUBLE:
                return random.choice(NUMBERS)
            case other:
                raise AssertionError(f"no values for type {other} of {field.full_name}")

    def _text(self) -> str:
        random = self._random
        kind = random.random()
        if kind < 0.35 and self._known:
            return random.choice(self._known)
        if kind < 0.6:
            return random.choice(WORDS)
        if kind < 0.9:
            return "".join(random.choices(LETTERS[:6], k=random.choice(LENGTHS)))
        return "".join(random.choices(LETTERS, k=random.choice(LENGTHS)))

    def _fill_struct(self, struct: Struct, depth: int) -> None:
        for _ in range(self._random.choice((0, 1, 2, 5))):
            struct.fields[self._text()[:60]].CopyFrom(self._value(depth))
        if self._random.random() < 0.05:
            deep = Value(null_value=0)
            for _ in range(self._random.choice((30, 31, 32, 33, 40))):
                deep = Value(list_value=ListValue(values=[deep]))
            struct.fields["deep"].CopyFrom(deep)

    def _value(self, depth: int) -> Value:
        random = self._random
        match random.randrange(7 if depth < 6 else 5):
            case 0:
                return Value(null_value=0)
            case 1:
                return Value(bool_value=True)
            case 2:
                return Value(number_value=random.choice(NUMBERS))
            case 3:
                return Value(string_value=self._text())
            case 4:
                return Value() if random.random() < 0.1 else Value(number_value=1)
            case 5:
                inner = Struct()
                self._fill_struct(inner, depth + 2)
                return Value(struct_value=inner)
            case _:
                count = random.choice((0, 1, 3))
                values = [self._value(depth + 2) for _ in range(count)]
                return Value(list_value=ListValue(values=values))

    def _damaged(self, data: bytes) -> bytes:
        random = self._random
        damaged = bytearray(data or b"\0")
        at = random.randrange(len(damaged))
        match random.randrange(4):
            case 0:
                del damaged[at:]
            case 1:
                damaged[at] ^= 1 << random.randrange(8)
            case 2:
                damaged[at:at] = random.randbytes(random.choice((1, 4, 40)))
            case _:
                damaged += damaged[at:]
        return bytes(damaged)
