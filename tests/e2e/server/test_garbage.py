"""Garbage collections of a running server: nobody is served while one runs."""

import json
import os
import shutil
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.forked import Piped
from tests.support.ports import free_port

CALLS = 900
MAX_OBJECTS = 5_000
"""Objects that a collection may free: it takes a microsecond or two for each."""

PROGRAM = """
import gc, os
from jobledger_server.__main__ import main

file = open(os.environ["COLLECTIONS"], "a", buffering=1)
gc.callbacks.append(lambda phase, info: phase == "stop" and print(info["collected"], file=file))
main()
"""


def test_no_garbage_collection_frees_many_objects_at_once(
    tmp_path: Path, sqlite_template: Path
) -> None:
    """gRPC leaves a few objects in a cycle at every call, and they must not pile up."""
    file, database = tmp_path / "collections", tmp_path / "jobledger.db"
    shutil.copy(sqlite_template, database)
    target = f"127.0.0.1:{free_port()}"
    serve = ["serve", "--listen", target, "--database", f"sqlite:///{database}"]
    server = Piped("python", [PROGRAM, *serve], env={**os.environ, "COLLECTIONS": str(file)})
    try:
        assert any(json.loads(line)["event"] == "serving" for line in server.stderr)
        before = len(file.read_text().split())
        with grpc.insecure_channel(target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for _ in range(CALLS):
                health.Check(health_pb2.HealthCheckRequest())
        freed = [int(each) for each in file.read_text().split()[before:]]
    finally:
        server.kill()
        server.communicate()
    assert sum(freed) > CALLS
    assert max(freed) < MAX_OBJECTS
