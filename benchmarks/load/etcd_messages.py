"""etcd's own API, as far as it is called here: put a value, watch a key.

The messages are made of their numbers, so nothing has to be generated or installed. They are
those of etcd's rpc.proto and kv.proto, less the fields that nobody here sets or reads.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_Type: TypeAlias = "Field.Type.ValueType | str"
"""One of protobuf's own, or the name of a message; `[]` after it: any number of them."""

_MESSAGES: Final[Mapping[str, Mapping[str, tuple[int, _Type]]]] = {
    "PutRequest": {"key": (1, Field.TYPE_BYTES), "value": (2, Field.TYPE_BYTES)},
    "PutResponse": {},
    "WatchCreateRequest": {"key": (1, Field.TYPE_BYTES)},
    "WatchRequest": {"create_request": (1, "WatchCreateRequest")},
    "WatchResponse": {
        "created": (3, Field.TYPE_BOOL),
        "canceled": (4, Field.TYPE_BOOL),
        "events": (11, "Event[]"),
    },
    "Event": {"kv": (2, "KeyValue")},
    "KeyValue": {
        "key": (1, Field.TYPE_BYTES),
        "version": (4, Field.TYPE_INT64),
        "value": (5, Field.TYPE_BYTES),
    },
}


def _made(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(f"etcd.{name}"))


def _described() -> FileDescriptorProto:
    file = FileDescriptorProto(name="etcd.proto", package="etcd", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number, label=Field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                field.type = Field.TYPE_MESSAGE
                field.type_name = f".etcd.{kind.removesuffix('[]')}"
                if kind.endswith("[]"):
                    field.label = Field.LABEL_REPEATED
            else:
                field.type = kind
    return file


_POOL: Final = DescriptorPool()
_POOL.AddSerializedFile(_described().SerializeToString())

PutRequest: Final = _made("PutRequest")
PutResponse: Final = _made("PutResponse")
WatchRequest: Final = _made("WatchRequest")
WatchResponse: Final = _made("WatchResponse")


class EtcdStub:
    """etcd's calls on one channel, as a generated stub would have them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.Put: Any = channel.unary_unary(
            "/etcdserverpb.KV/Put",
            request_serializer=PutRequest.SerializeToString,
            response_deserializer=PutResponse.FromString,
        )
        self.Watch: Any = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=WatchRequest.SerializeToString,
            response_deserializer=WatchResponse.FromString,
        )
