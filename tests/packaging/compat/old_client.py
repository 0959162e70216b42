"""A client whose stubs are made, at run time, of the protos in a descriptor set."""

from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICES = ("jobledger.v1.JobService", "jobledger.v1.WorkerService")


class OldClient:
    """`client.CreateJob(user_id=…)` with the messages of those protos, and no others."""

    def __init__(self, descriptor_set: Path, channel: grpc.Channel) -> None:
        self._channel = channel
        self._pool = descriptor_pool.DescriptorPool()
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set.read_bytes())
        for file in files.file:  # Each after those that it imports.
            self._pool.Add(file)
        self.methods = {
            method.name: (f"/{service}/{method.name}", method)
            for service in SERVICES
            for method in self._pool.FindServiceByName(service).methods
        }

    def __getattr__(self, name: str) -> Any:
        path, method = self.methods[name]
        request_type = message_factory.GetMessageClass(method.input_type)
        answer_type = message_factory.GetMessageClass(method.output_type)
        open_call = (
            self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        )
        call = open_call(
            path,
            request_serializer=request_type.SerializeToString,
            response_deserializer=answer_type.FromString,
        )
        return lambda **fields: call(request_type(**fields), timeout=30)

    def number(self, enum_value: str) -> int:
        """Return what an enum's value was in those protos."""
        enum = self._pool.FindEnumTypeByName("jobledger.v1.JobStatus")
        return int(enum.values_by_name[enum_value].number)
