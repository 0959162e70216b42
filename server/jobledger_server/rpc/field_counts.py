"""Counts the fields of a request that is not parsed yet.

The parser keeps the interpreter, and so the event loop, until it has the whole request. What takes
it longest, and most memory, is many small messages and the keys of maps.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf.struct_pb2 import Struct

MAX_FIELDS = 4096
"""Fields of a request at most, counting each list entry. The largest list allowed has 1,000."""

MAX_KEYS = 65_536
"""Keys of all maps of a request at most: those of Structs, at any depth, and of labels. A batch of
1,000 jobs may have twice their labels. 100,000 take the parser a tenth of a second."""


def has_too_many_fields(data: bytes, position: int, end: int, message: Any) -> bool:
    """Count the fields of a message by its descriptor, and of each large one in it.

    A million empty assets are 2 MB, and 100 MB once parsed. A malformed message is left to the
    parser. So is a Struct, which has a limit of its own.
    """
    for _ in range(MAX_FIELDS):
        if position >= end:
            return False
        tag, position = _varint(data, position)
        match tag & 7:
            case 0:
                _, position = _varint(data, position)
            case 1:
                position += 8
            case 2:
                length, position = _varint(data, position)
                if length > 2 * MAX_FIELDS:  # a field has two bytes at least
                    field = message.fields_by_number.get(tag >> 3)
                    inner = None if field is None else field.message_type
                    if (
                        inner is not None
                        and inner is not Struct.DESCRIPTOR
                        and has_too_many_fields(data, position, min(position + length, end), inner)
                    ):
                        return True
                position += length
            case 3 | 4:
                pass  # the begin or the end of a group, whose fields count too
            case 5:
                position += 4
            case _:
                return False
    return position < end


def has_too_many_keys(data: bytes, message: Any) -> bool:
    """Count the keys of the maps of a message, at any depth.

    Those without a text are not counted: they are one key.
    """
    # The tag of a key begins with one of these bytes, so there are no more keys than these.
    if data.count(b"\x0a") + data.count(b"\x8a") <= MAX_KEYS:
        return False
    keys = 0
    open_messages = [(0, len(data), message)]
    while open_messages:
        position, end, descriptor = open_messages.pop()
        is_entry, messages = _messages(descriptor)
        keys += is_entry
        if keys > MAX_KEYS:
            return True
        while position < end:
            tag, position = _varint(data, position)
            match tag & 7:
                case 0:
                    _, position = _varint(data, position)
                case 1:
                    position += 8
                case 2:
                    length, position = _varint(data, position)
                    inner = messages.get(tag >> 3)
                    if inner is not None and length:
                        open_messages.append((position, min(position + length, end), inner))
                    position += length
                case 3 | 4:
                    pass  # the begin or the end of a group
                case 5:
                    position += 4
                case _:
                    break
    return False


@cache
def _messages(message: Any) -> tuple[bool, Mapping[int, Any]]:
    """Return whether a message is an entry of a map, and the types of messages in it."""
    fields = message.fields_by_number.items()
    inner = {number: each.message_type for number, each in fields if each.message_type is not None}
    return message.GetOptions().map_entry, inner


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number that starts at `position`, and the position after it."""
    number = shift = 0
    for byte in data[position : position + 10]:
        number |= (byte & 0x7F) << shift
        shift += 7
        position += 1
        if byte < 0x80:  # noqa: PLR2004
            break
    return number, position
