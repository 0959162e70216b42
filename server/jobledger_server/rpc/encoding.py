"""Puts serialized messages into other messages, by protobuf's wire format.

The database stores payloads serialized, and what many subscribers get is serialized once.
Parsing that only to serialize it again would block the event loop. See
https://protobuf.dev/programming-guides/encoding/.
"""

from google.protobuf.message import Message

_LENGTH_DELIMITED = 2


def encoded_field(message: type[Message], name: str, content: bytes) -> bytes:
    """Encode one field of a message; `content` is the field's serialized value.

    Append it to a serialized message of this type. Protobuf merges it with the same field
    there, or adds it to a repeated field.
    """
    number = message.DESCRIPTOR.fields_by_name[name].number
    return b"".join((_varint(number << 3 | _LENGTH_DELIMITED), _varint(len(content)), content))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
