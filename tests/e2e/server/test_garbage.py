"""Garbage collections of a running server: nobody is served while one runs."""

import textwrap
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.targets import Server, new_database

CALLS = 1_500
MAX_OBJECTS = 5_000
"""Objects that a collection may free: it takes a microsecond or two for each."""

COUNTER = textwrap.dedent(
    """
    import gc, os
    file = open(os.environ["COLLECTIONS"], "a", buffering=1)
    gc.callbacks.append(lambda phase, info: phase == "stop" and print(info["collected"], file=file))
    """
)
"""Python runs it at its start if it is found as `sitecustomize`."""


def test_no_garbage_collection_frees_many_objects_at_once(tmp_path: Path) -> None:
    """gRPC leaves a few objects in a cycle at every call, and they must not pile up."""
    (tmp_path / "sitecustomize.py").write_text(COUNTER)
    file = tmp_path / "collections"
    environment = {"PYTHONPATH": str(tmp_path), "COLLECTIONS": str(file)}
    with (
        new_database("SQLite", tmp_path) as database,
        Server(database, environment=environment) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        before = len(file.read_text().split())
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(CALLS):
            health.Check(health_pb2.HealthCheckRequest())
        freed = [int(each) for each in file.read_text().split()[before:]]
    assert sum(freed) > CALLS
    assert max(freed) < MAX_OBJECTS
