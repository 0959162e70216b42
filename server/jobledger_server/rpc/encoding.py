"""Puts what is serialized already into messages, by protobuf's wire format.

The database keeps payloads serialized, and what many subscribers get is serialized once.
To parse that only to serialize it again would hold the event loop. See
https://protobuf.dev/programming-guides/encoding/.
"""

from google.protobuf.message import Message

_LENGTH_DELIMITED = 2


def encoded_field(message: type[Message], name: str, content: bytes) -> bytes:
    """Encode a field of a message that holds this serialized message.

    Append it to a serialized message of this type: protobuf merges it with the same field
    there, or adds it to those of a repeated one.
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
