"""What docs/guides/clients.md shows is what the programs do, and does what it says."""

import ast
import json
from typing import Any

import grpc

from jobledger.v1.job_service_pb2 import ListJobsRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from tests.polyglot.gateway import Gateway
from tests.support.pages import ROOT, blocks
from tests.support.server_process import ServerProcess

PAGE = ROOT / "docs/guides/clients.md"


def service_config() -> dict[str, Any]:
    (block,) = blocks(PAGE, "json")
    config: dict[str, Any] = json.loads(block.text)
    return config


def test_the_service_config_of_the_page_is_that_of_the_programs() -> None:
    """Of Python's; that the others behave alike is tested on each of them."""
    folder = ROOT / "examples/clients/python"
    tree = ast.parse((folder / "connect.py").read_text("utf-8"))
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SERVICE_CONFIG"
    ]
    assert ast.literal_eval(value) == service_config()


def test_round_robin_sends_each_call_to_the_next_server(server: ServerProcess) -> None:
    config = {**service_config(), "loadBalancingConfig": [{"round_robin": {}}]}
    with Gateway(server.target) as one, Gateway(server.target) as two:
        target = f"ipv4:{one.target},{two.target}"
        options = [("grpc.service_config", json.dumps(config))]
        with grpc.insecure_channel(target, options) as channel:
            jobs = JobServiceStub(channel)
            # Until both are connected, the first one gets everything.
            while not (one.attempts["ListJobs"] and two.attempts["ListJobs"]):
                jobs.ListJobs(ListJobsRequest(user_id="ada"), timeout=30)
            before = [len(each.attempts["ListJobs"]) for each in (one, two)]
            for _ in range(10):
                jobs.ListJobs(ListJobsRequest(user_id="ada"), timeout=30)
        after = [len(each.attempts["ListJobs"]) for each in (one, two)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [5, 5]
