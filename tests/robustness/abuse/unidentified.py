"""Callers without an identity, of a server whose access file wants one."""

import asyncio
import hashlib
from collections import Counter
from pathlib import Path

import grpc
from google.protobuf.struct_pb2 import Struct, Value

from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from tests.robustness.abuse.attacker import begin
from tests.support.access_file import write_access_file
from tests.support.proxy import Proxy
from tests.support.server_process import ServerProcess

TOKEN = "good-token"
ACCESS = f"""
[[caller]]
name = "good"
token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
roles = ["owner"]
users = ["good"]
"""


def server_with_access(folder: Path, database: str | None = None) -> ServerProcess:
    """Return a server that a good client with `TOKEN` may call."""
    access = folder / "access.toml"
    write_access_file(access, ACCESS)
    access.chmod(0o600)
    return ServerProcess(folder, database=database, arguments=["--access", str(access)])


def batches(target: str, *, count: int) -> object:
    """Send batches of 1 MB at once, over four connections, from another address of loopback."""

    async def flood() -> Counter[str]:
        async with Proxy(target, source="127.0.0.2") as proxy:
            return await send_all(proxy.target)

    async def send_all(target: str) -> Counter[str]:
        large = Struct(fields={"blob": Value(string_value="x" * 250_000)})
        one = jobs.CreateJobRequest(user_id="eve", job_type="t", parameters=large)
        batch = jobs.BatchCreateJobsRequest(user_id="eve", requests=[one] * 4)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(target, options) for _ in range(4)]
        codes: Counter[str] = Counter()

        async def send(number: int) -> None:
            try:
                await JobServiceStub(channels[number % 4]).BatchCreateJobs(batch, timeout=25)
            except grpc.aio.AioRpcError as error:
                codes[error.code().name] += 1

        begin()
        await asyncio.gather(*map(send, range(count)))
        return codes

    return asyncio.run(flood())
