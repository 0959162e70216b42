"""Reflection under both of its names: tools ask for v1 first, older ones for v1alpha only."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

V1 = "grpc.reflection.v1.ServerReflection"


def add_reflection(server: Any, services: Sequence[str]) -> None:
    """Add the reflection of these services, and of itself, to a server or its stand-in."""
    _describe_v1()
    names = (*services, reflection.SERVICE_NAME, V1)
    servicer: Any = reflection.aio.ReflectionServicer(names)
    add_ServerReflectionServicer_to_server(servicer, server)
    # gRPC's package has v1alpha only. The messages of v1 are the same on the wire.
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": handler}
    server.add_registered_method_handlers(V1, handlers)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(V1, handlers)])


@cache
def _describe_v1() -> None:
    """Add the file of v1 to the known ones, once: that of v1alpha under its name."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    renamed = text_format.MessageToString(file).replace("v1alpha", "v1")
    v1 = text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())
